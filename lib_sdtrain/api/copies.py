"""A run in other words: as a file for `train --config`, and as a command line."""
from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.fields import declared, get_path
from lib_sdtrain.settings.layers import Resolved, to_plain
from lib_sdtrain.settings.run import RunSettings


def yaml_of(resolved: Resolved[RunSettings]) -> str:
    """Every setting that somebody has chosen, also where it is the default's value: elsewhere others may stand."""
    plain, nested = to_plain(resolved.settings), {}
    for item in declared(RunSettings):
        if item.path in resolved.origins or get_path(resolved.settings, item.path) != item.default:
            *heads, last = item.path.split(".")
            place, value = nested, plain
            for head in heads:
                place, value = place.setdefault(head, {}), value[head]
            place[last] = value[last]
    return textfiles.write_yaml(nested)


def command_line(choice: Choice, preset: str = "", here: Mapping[str, Any] | None = None) -> str:
    """`python -m lib_sdtrain train` with a choice's preset (by name, or `preset`, its file) and changes.

    `here` are values that the surroundings would add, and that are not known on a command line.
    """
    words = ["python", "-m", "lib_sdtrain", "train"]
    words += ["--preset", preset or choice.preset] if choice.preset else []
    for path, value in {**(here or {}), **choice.changes}.items():
        words += ["--set", f"{path}={_word(value)}"]
    return shlex.join(words)


def _word(value: Any) -> str:
    """A value as YAML reads it back: text as it is where that says the same, otherwise in quotes."""
    if value is None:
        return "off"
    if isinstance(value, str) and _read_back(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, list, dict)) else str(value).lower()


def _read_back(text: str) -> Any:
    try:
        return textfiles.parse_yaml(text, "value")
    except UserError:
        return None
