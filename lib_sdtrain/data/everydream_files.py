"""What EveryDream's side files say of the pictures in a folder.

multiply.txt, flip_p.txt, cond_dropout.txt, loss_scale.txt, batch_id.txt, shuffle_tags.txt and local.yaml are for the
folder's own pictures, global.yaml for those below it too. A text file wins over local.yaml, that over global.yaml,
and a nearer global.yaml over one further up.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.textfiles import read_mapping

NUMBERS = ("multiply", "flip_p", "cond_dropout", "loss_scale")
CHANCES = ("flip_p", "cond_dropout")
LONGEST = 1000  # characters that are read of a file which holds one number or name


@dataclass(frozen=True)
class SideFiles:
    """A folder's options; None is left to the settings."""

    multiply: float = 1.0
    flip_p: float | None = None
    cond_dropout: float | None = None
    loss_scale: float = 1.0
    batch_id: str = ""
    shuffle_tags: bool | None = None


def read_side_files(root: Path, folder: PurePosixPath) -> SideFiles:
    """The options of `folder` below `root`. Raises `UserError` with every value that cannot be read."""
    values: dict[str, Any] = {}
    places = [root, *(root.joinpath(*folder.parts[: depth + 1]) for depth in range(len(folder.parts)))]
    problems = Problems()
    for place in places:
        _take_yaml(place / "global.yaml", values, problems)
    own = places[-1]
    _take_yaml(own / "local.yaml", values, problems)
    for name in (*NUMBERS, "batch_id", "shuffle_tags"):
        file = own / f"{name}.txt"
        if file.is_file():
            values[name] = True if name == "shuffle_tags" else _read(file, name, problems)
    problems.raise_if_any()
    return SideFiles(**{name: value for name, value in values.items() if value is not None})


def _read(file: Path, name: str, problems: Problems) -> Any:
    with file.open(encoding="utf-8", errors="replace") as opened:
        text = opened.read(LONGEST).strip()
    return text if name == "batch_id" else _number(text, name, str(file), problems)


def _take_yaml(file: Path, values: dict[str, Any], problems: Problems) -> None:
    if not file.is_file():
        return
    try:
        raw = read_mapping(file)
    except UserError as error:
        problems.absorb(error)
        return
    for name, value in raw.items():
        if name in NUMBERS:
            values[name] = _number(value, name, f"{file}: {name}", problems)
        elif name == "batch_id":
            values[name] = str(value)
        elif name == "shuffle_tags" and isinstance(value, bool):
            values[name] = value


def _number(raw: Any, name: str, where: str, problems: Problems) -> float | None:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        problems.add(f"{raw!r} is not a number", where=where, fix="write one number, for instance 1.5")
        return None
    highest = 1.0 if name in CHANCES else math.inf
    if not 0 <= value <= highest or value == math.inf:
        limits = "from 0 to 1" if name in CHANCES else "of at least 0"
        problems.add(f"{raw} is not a number {limits}", where=where)
        return None
    return value
