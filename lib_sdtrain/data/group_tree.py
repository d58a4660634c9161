"""Hierarchical weights: a folder's share is its weight among its neighbours, times its parent's share.

Source: anime_screenshot_pipeline. Pictures that lie in a folder beside sub-folders count as one more neighbour of
these, with the folder's own weight.
"""
from __future__ import annotations

import csv
import fnmatch
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.parse import nearest

Weight = Callable[[PurePosixPath], float]
HERE = PurePosixPath()


def leaf_shares(folders: Sequence[PurePosixPath], weight: Weight) -> dict[PurePosixPath, float]:
    """The share of each folder's own pictures; they add up to 1. `folders` hold pictures themselves."""
    holding = set(folders)
    children: dict[PurePosixPath, set[PurePosixPath]] = {}
    for folder in folders:
        for path in (folder, *folder.parents):
            if path != HERE:
                children.setdefault(path.parent, set()).add(path)
    shares: dict[PurePosixPath, float] = {}

    def divide(folder: PurePosixPath, share: float) -> None:
        parts = [(child, weight(child)) for child in sorted(children.get(folder, ()))]
        own = weight(folder) if folder in holding else 0.0
        total = sum(part for _, part in parts) + own
        if folder in holding:
            shares[folder] = share * own / total if total else 0.0
        for child, part in parts:
            divide(child, share * part / total if total else 0.0)

    divide(HERE, 1.0)
    return shares


def weights_from_tree(tree: Mapping[str, Any], known: Collection[PurePosixPath], where: str) -> Weight:
    """Weights from nested data: `folder: 3`, or `folder: {weight: 3, sub: 2}`; what is not named weighs 1.

    Raises `UserError` for names that are no folders and weights that are no numbers.
    """
    found: dict[PurePosixPath, float] = {}
    problems = Problems()

    def visit(mapping: Mapping[str, Any], folder: PurePosixPath) -> None:
        for name, value in mapping.items():
            path = folder / str(name)
            place = f"{where}.{path.as_posix()}"
            if name == "weight" and not isinstance(value, Mapping):
                found[folder] = _weight(value, f"{where}.{folder.as_posix()}.weight", problems)
            elif path not in known:
                names = [other.as_posix() for other in known if other != HERE]
                problems.add("no folder of this name holds pictures", where=place, fix=nearest(path.as_posix(), names))
            elif isinstance(value, Mapping):
                visit(value, path)
            else:
                found[path] = _weight(value, place, problems)

    visit(tree, HERE)
    problems.raise_if_any()
    return lambda folder: found.get(folder, 1.0)


def _weight(raw: Any, where: str, problems: Problems) -> float:
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        problems.add(f"{raw!r} is not a weight of at least 0", where=where)
        return 1.0
    return value


def read_patterns(file: Path, root: Path, where: str) -> Weight:
    """Weights from a csv of `name or pattern, weight`: a folder's name counts first, else the first pattern that
    matches its whole path; everything else weighs 1. Raises `UserError`.
    """
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}", where=where) from error
    problems, patterns = Problems(), {}
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) == 2:
            patterns[cells[0]] = _weight(cells[1], f"{file}, line {number}", problems)
        else:
            problems.add(f"{','.join(row)!r} is not a pattern and a weight", where=f"{file}, line {number}",
                         fix="for instance: 1_character, 3")
    problems.raise_if_any()

    def weight(folder: PurePosixPath) -> float:
        path = root.joinpath(*folder.parts)
        if path.name in patterns:
            return patterns[path.name]
        matching = (value for pattern, value in patterns.items() if fnmatch.fnmatchcase(path.as_posix(), pattern))
        return next(matching, 1.0)

    return weight
