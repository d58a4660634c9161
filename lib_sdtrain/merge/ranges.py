"""Weights of single blocks as people write them in a list: `IN04:0.3`, `IN00-IN05:1 OUT:0`, `M00:0-1 (+0.25)`."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from lib_sdtrain.errors import UserError

_NUMBER = r"[+-]?\s*\d+(?:\.\d*)?|[+-]?\s*\.\d+"
_STEPS = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})(?:\s*\(([+-]\d+(?:\.\d*)?)\s*\))?")
_COUNT = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*\[(\d+)\s*\]")
_PARTS = ("IN", "OUT")
_MOST = 1000
_WHERE = "[SD Train] Block weight"


def numbers(text: str) -> list[str]:
    """The numbers that a field stands for: itself, `A-B (+S)` in steps, or `A-B [N]`, N of them evenly.

    Raises `UserError` for anything else.
    """
    count, steps = _COUNT.fullmatch(text.strip()), _STEPS.fullmatch(text.strip())
    if count:
        first, last, many = _float(count[1]), _float(count[2]), int(count[3])
        found = [first + (last - first) * n / max(many - 1, 1) for n in range(min(many, _MOST))]
    elif steps:
        first, last, by = _float(steps[1]), _float(steps[2]), float(steps[3] or 1)
        if by == 0 or (last - first) * by < 0:
            raise UserError(f"{text!r} never ends", where=_WHERE, fix="for instance IN04:0-1 (+0.25)")
        found = [first + by * n for n in range(min(_MOST, math.floor((last - first) / by + 1e-9) + 1))]
    else:
        found = [_float(text)]
    return [f"{round(value, 6):g}" for value in found]


def _float(text: str) -> float:
    try:
        value = float(text.replace(" ", ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{text!r} is not a number", where=_WHERE, fix="for instance IN04:0.3")
    return value


def expanded(fields: Sequence[str]) -> list[str]:
    """Every field as `BLOCKS:NUMBER`, ranges written out; a bare number goes on with the blocks before it.

    Raises `UserError` for what is neither.
    """
    found: list[str] = []
    blocks = ""
    for field in (field.strip() for field in fields):
        if not field:
            continue
        parts = field.split()
        if sum(":" in part for part in parts) > 1:  # several blocks at once: no ranges
            found.append(" ".join(parts))
            blocks = ""
            continue
        head, colon, rest = field.rpartition(":")
        blocks = head.strip() if colon else blocks
        if not blocks:
            raise UserError(f"{field!r} names no block", where=_WHERE, fix="for instance IN04:0.3")
        found += [f"{blocks}:{number}" for number in numbers(rest)]
    return found


def read_blocks(text: str, names: Sequence[str]) -> dict[str, float]:
    """Block -> weight of `BLOCKS:NUMBER`, several with spaces between them; later ones win.

    BLOCKS: a name, `IN00-IN05`, or IN, OUT for all of them. Raises `UserError` for blocks that the model has not.
    """
    found: dict[str, float] = {}
    for part in text.split():
        head, _, value = part.rpartition(":")
        found |= dict.fromkeys(_blocks(head.upper(), names), _float(value))
    return found


def _blocks(text: str, names: Sequence[str]) -> list[str]:
    if text in _PARTS:
        return [name for name in names if name.startswith(text)]
    first, dash, last = text.partition("-")
    ends = [first, last] if dash else [first]
    unknown = [name for name in ends if name not in names]
    if unknown:
        known = f"{names[0]}, {names[1]} ... {names[-1]}"
        raise UserError(f"there is no block {unknown[0]!r}", where=_WHERE, fix=known)
    begin, end = (names.index(name) for name in (ends[0], ends[-1]))
    return list(names[min(begin, end) : max(begin, end) + 1])


def with_blocks(weights: Mapping[str, float], blocks: Mapping[str, float]) -> str:
    """Weights of all blocks as text, some of them replaced."""
    return ",".join(repr(float(blocks.get(name, value))) for name, value in weights.items())
