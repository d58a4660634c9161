"""naifu-diffusion's `arb` block, word for word, and the buckets that it makes."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_sdtrain.data.pictures import Size
from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.parse import nearest

PAIRS, WHOLE, FLAGS = ("base_res", "max_size"), ("divisible", "min_dim", "dim_limit"), ("enabled", "debug")
LONGEST = 8192


@dataclass(frozen=True)
class Arb:
    """The block's numbers. Defaults are those of naifu at 512."""

    base_res: Size = (512, 512)
    max_size: Size = (768, 512)
    divisible: int = 64
    min_dim: int = 256
    dim_limit: int = 1024
    max_ar_error: float = 4.0


def default_arb(base: int) -> Arb:
    """What naifu takes without a block (August 2023 and later) at the resolution `base`."""
    wide = base * 3 // 2 if base < 1024 else base
    return Arb((base, base), (wide, base), 64, base // 2, 2 * base)


def parse_arb(raw: Mapping[str, Any]) -> Arb:
    """A block's values, naifu's own where it leaves some out. Raises `UserError` with every mistake."""
    problems, values = Problems(), {}
    known = [*PAIRS, *WHOLE, *FLAGS, "max_ar_error"]
    for name, value in raw.items():
        where = f"data.arb.{name}"
        if name not in known:
            problems.add("unknown setting", where=where, fix=nearest(str(name), known))
        elif name in PAIRS:
            if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_side, value)):
                values[name] = (int(value[0]), int(value[1]))
            else:
                problems.add(f"{value!r} is not a width and a height", where=where, fix="for instance [768, 512]")
        elif name in WHOLE:
            if _side(value):
                values[name] = int(value)
            else:
                problems.add(f"{value!r} is not a whole number from 8 to {LONGEST}", where=where)
        elif name == "max_ar_error":
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
                values[name] = float(value)
            else:
                problems.add(f"{value!r} is not a number over 0", where=where, fix="4 is usual")
        elif not isinstance(value, bool):
            problems.add(f"{value!r} is neither true nor false", where=where)
    problems.raise_if_any()
    return Arb(**values)


def _side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 8 <= value <= LONGEST


def naifu_aspects(arb: Arb) -> dict[Size, float]:
    """Bucket -> the aspect that pictures are compared with, in naifu's order (width x 4096 - height).

    For every width the largest height within the area of `max_size`, then for every height the largest width;
    `base_res` too where a larger height was possible at its width, with an aspect of exactly 1.
    """
    budget = arb.max_size[0] * arb.max_size[1]
    found: dict[Size, float] = {}

    def largest(side: int) -> int:
        other = arb.min_dim
        while side * (other + arb.divisible) <= budget and other + arb.divisible <= arb.dim_limit:
            other += arb.divisible
        return other

    def sides() -> list[int]:
        last = min(arb.dim_limit, budget // arb.min_dim)
        return list(range(arb.min_dim, last + 1, arb.divisible))

    for width in sides():
        height = largest(width)
        met = range(arb.min_dim, height, arb.divisible)
        if width == arb.base_res[0] and arb.base_res[1] in met:
            found[arb.base_res] = 1.0
        found[width, height] = width / height
    for height in sides():
        width = largest(height)
        found[width, height] = width / height
    return dict(sorted(found.items(), key=lambda item: item[0][0] * 4096 - item[0][1]))
