"""What a person or a program chose for a run."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.parse import flatten
from lib_sdtrain.settings.run import RunSettings


@dataclass(frozen=True)
class Choice:
    """A preset by name (empty: none) and raw values by dotted path on top of it."""

    preset: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


def choice_of(body: Mapping[str, Any]) -> Choice:
    """`{"preset": name, "settings": nested or dotted}`. Raises `UserError` for anything else."""
    problems = Problems()
    for name in sorted(set(body) - {"preset", "settings"}):
        problems.add("unknown name", where=name, fix="known: preset, settings")
    settings = body.get("settings") or {}
    if not isinstance(settings, Mapping):
        problems.add("it is not a mapping of names to values", where="settings")
        settings = {}
    changes = flatten(RunSettings, {key: value for key, value in settings.items() if "concepts." not in key}, problems)
    problems.raise_if_any()
    changes |= {key: value for key, value in settings.items() if "concepts." in key}
    return Choice(str(body.get("preset") or ""), changes)
