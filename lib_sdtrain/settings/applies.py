"""When a setting matters: a control that does not apply is out of sight."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class When:
    """The setting at `path` has one of `values`; where there are none, it is on: not off, empty or 0.

    The path is that of the run, or a name beside the setting's own.
    """

    path: str
    values: tuple[str, ...] = ()

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        """Whether it is so; `value_of` tells a setting's value, or what its control holds (an optional number that is
        off is empty there).
        """
        value = value_of(self.path)
        if self.values:
            return str(value) in self.values
        return bool(value.strip()) if isinstance(value, str) else bool(value)

    @property
    def alternatives(self) -> tuple[When, ...]:
        """Of which one must hold."""
        return (self,)

    def __or__(self, other: When) -> Either:
        return Either((self, other))


@dataclass(frozen=True)
class Either:
    """One of these holds."""

    alternatives: tuple[When, ...]

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        """As `When.holds`."""
        return any(one.holds(value_of) for one in self.alternatives)

    def __or__(self, other: When) -> Either:
        return Either((*self.alternatives, other))


def when(path: str, *values: str) -> When:
    """The setting at `path` has one of `values`, or is on."""
    return When(path, values)


def applies(conditions: Iterable[When | Either], value_of: Callable[[str], Any]) -> bool:
    """Whether a setting with these conditions matters: all of them hold."""
    return all(condition.holds(value_of) for condition in conditions)
