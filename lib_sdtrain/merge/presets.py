"""Presets of block weights: the ones that come along, and the files of other mergers.

Files read: SuperMerger's and model-mixer's `mbwpresets.txt` (26 fields), Merge Block Weighted's
`preset.tsv` (25 fields without BASE, which is then 0), and the same with 20 fields for SDXL. A line is
`NAME<TAB>fields` or `NAME:fields`; where both separators occur, the tab counts, as in SuperMerger.
"""
from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_file
from lib_sdtrain.textfiles import read_text

BUNDLED = Path(__file__).with_name("presets.tsv")
_HEADER = "preset_name"


@dataclass(frozen=True)
class Preset:
    """A named row of 26 (SD1) or 20 (SDXL) fields: numbers, or letters to be diced."""

    name: str
    fields: tuple[str, ...]


def read_presets(path: Path) -> dict[str, Preset]:
    """Every preset of a file by name; of a repeated name the last, as the peers do.

    Raises `UserError` naming file and line where a line has a separator but not 20, 25 or 26 fields.
    """
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        preset = _parse_line(line, f"{path}, line {number}")
        if preset is not None:
            found[preset.name] = preset
    return found


def _parse_line(line: str, where: str) -> Preset | None:
    if not line.strip() or line.lstrip().startswith(("#", _HEADER)):
        return None
    separator = "\t" if "\t" in line else ":"
    name, found, rest = line.partition(separator)
    if not found:
        raise UserError("no preset on this line", where=where, fix="write NAME<TAB>numbers separated by commas")
    fields = tuple(field.strip() for field in rest.split(","))
    if len(fields) == 25:
        fields = ("0", *fields)
    if len(fields) not in (26, 20):
        raise UserError(f"{len(fields)} fields", where=where, fix="a preset has 26 (SD1), 20 (SDXL) or 25 (MBW)")
    return Preset(name.strip(), fields)


def bundled_presets() -> dict[str, Preset]:
    """The presets that come along: those that all mergers ship, and the two of AnimeDiffusion's card."""
    return read_presets(BUNDLED)


def find_preset(text: str, presets: Mapping[str, Preset], where: str) -> Preset:
    """The preset called `text`, or that of a preset file: FILE (with one preset in it) or FILE:NAME.

    Raises `UserError` with the nearest known name; an unknown name is never read as zeros.
    """
    if text in presets:
        return presets[text]
    path, _, name = text.rpartition(":")
    if is_file(Path(text)):
        return _from_file(Path(text), "", where)
    if path and is_file(Path(path)):
        return _from_file(Path(path), name, where)
    same = [known for known in presets if known.lower() == text.lower()]
    if same:
        return presets[same[0]]
    raise UserError(f"there is no preset or preset file called {text!r}", where=where, fix=_hint(text, presets))


def _from_file(path: Path, name: str, where: str) -> Preset:
    presets = read_presets(path)
    if name in presets:
        return presets[name]
    if not name and len(presets) == 1:
        return next(iter(presets.values()))
    if not presets:
        raise UserError("no presets in this file", where=str(path))
    what = f"{path} has no preset {name!r}" if name else f"{path} has {len(presets)} presets"
    raise UserError(what, where=where, fix=f"write {path}:NAME, one of {', '.join(list(presets)[:8])}")


def _hint(text: str, presets: Mapping[str, Preset]) -> str:
    close = difflib.get_close_matches(text.upper(), [name.upper() for name in presets], n=1, cutoff=0.5)
    if close:
        return "did you mean " + next(name for name in presets if name.upper() == close[0]) + "?"
    return "known presets: " + ", ".join(list(presets)[:10]) + " ..."
