"""Block weights as people write them: numbers, a preset's name, or a preset file.

The 26 <-> 20 rule: SDXL has no IN09-IN11 and OUT09-OUT11. Going to SDXL these six are left out; going to
SD1 they take the value of IN08 and OUT08. Going there and back changes nothing on the SDXL side.
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lib_sdtrain.errors import UserError
from lib_sdtrain.merge.blocks import SD, SDXL, Layout
from lib_sdtrain.merge.presets import Preset, find_preset

_LETTERS = "RUX"
COUNTS = {len(layout.names): layout for layout in (SD, SDXL)}


@dataclass(frozen=True)
class BlockWeights:
    """One weight for each block of `layout`, BASE first. `notes` say what was converted on the way."""

    layout: Layout
    values: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, block: str) -> float:
        return self._by_name[block]

    def as_dict(self) -> dict[str, float]:
        """Block name -> weight."""
        return dict(self._by_name)

    @cached_property
    def _by_name(self) -> dict[str, float]:
        return dict(zip(self.layout.names, self.values, strict=True))

    def to(self, layout: Layout) -> BlockWeights:
        """The same weights for another layout, by the rule of this module."""
        if layout is self.layout:
            return self
        given = self.as_dict()
        values = tuple(given[name] if name in given else given[_nearest(name)] for name in layout.names)
        return BlockWeights(layout, values, (*self.notes, _told(self, layout)))


def _nearest(name: str) -> str:
    return ("IN" if name.startswith("IN") else "OUT") + f"{SDXL.depth - 1:02d}"


def _told(weights: BlockWeights, layout: Layout) -> str:
    have, want = len(weights.values), len(layout.names)
    if have < want:
        return f"{have} weights read as {want}: IN09-IN11 take IN08's value, OUT09-OUT11 take OUT08's"
    lost = {name: value for name, value in weights.as_dict().items() if name not in layout.names}
    listed = ", ".join(f"{name}={value:g}" for name, value in lost.items())
    return f"{have} weights read as {want}: {listed} are left out"


def flat(value: float, layout: Layout) -> BlockWeights:
    """The same weight for every block: a plain merge."""
    return BlockWeights(layout, (float(value),) * len(layout.names))


def parse_fields(fields: Sequence[str], where: str) -> tuple[str, ...]:
    """26 or 20 fields, each a finite number or a letter to be diced (R, U, X). `UserError` otherwise."""
    cleaned = tuple(field.strip() for field in fields)
    bad = [field for field in cleaned if field not in _LETTERS and not _is_number(field)]
    if bad:
        raise UserError(f"{', '.join(map(repr, bad[:3]))}: not a finite number", where=where,
                        fix="separate numbers by commas")
    if len(cleaned) not in COUNTS:
        raise UserError(f"{len(cleaned)} block weights", where=where, fix=_count_fix(len(cleaned)))
    return cleaned


def _count_fix(count: int) -> str:
    known = "26 are needed for SD1 and SD2 (BASE, IN00-IN11, M00, OUT00-OUT11), 20 for SDXL"
    if count in (25, 19):
        return f"{known}; put the weight of BASE in front"
    return known


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_fields(text: str, presets: Mapping[str, Preset], where: str) -> tuple[str, ...]:
    """The fields that `text` stands for: numbers, the name of a preset, a preset file or FILE:NAME.

    Raises `UserError` for another count than 26 or 20, a name or file that is not found.
    """
    stripped = text.strip()
    if "," in stripped or _is_number(stripped):
        return parse_fields([part for part in re.split(r"[,\s]+", stripped) if part], where)
    return parse_fields(find_preset(stripped, presets, where).fields, f"{where}, preset {stripped}")


def read_weights(text: str, presets: Mapping[str, Preset], where: str = "block weights") -> BlockWeights:
    """Block weights from text (see `read_fields`), in the layout that their number tells."""
    fields = read_fields(text, presets, where)
    diced = [field for field in fields if field in _LETTERS]
    if diced:
        raise UserError(f"{diced[0]} asks for a random number", where=where, fix="give a dice seed")
    return BlockWeights(COUNTS[len(fields)], tuple(float(field) for field in fields))
