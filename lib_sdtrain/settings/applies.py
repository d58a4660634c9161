"""When a setting matters: a control that does not apply is out of sight."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

OFF = ("", "0", "0.0", "False", "None", "off")


@dataclass(frozen=True)
class When:
    """One of the settings at `paths` has one of `values`; where there are none, it is not off, empty or 0.

    Paths are those of the run, or names beside the setting's own.
    """

    paths: tuple[str, ...]
    values: tuple[str, ...] = ()

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        """Whether it is so; `value_of` tells a setting's value, as it is or as people write it."""
        texts = (str(value_of(path)).strip() for path in self.paths)
        return any(text in self.values if self.values else text not in OFF for text in texts)


def when(path: str, *values: str) -> When:
    """The setting at `path` has one of `values`, or is on."""
    return When((path,), values)


def any_on(*paths: str) -> When:
    """At least one of these is on."""
    return When(paths)


def applies(conditions: Iterable[When], value_of: Callable[[str], Any]) -> bool:
    """Whether a setting with these conditions matters: all of them hold."""
    return all(condition.holds(value_of) for condition in conditions)
