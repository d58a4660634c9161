"""Changing the number format of weights."""
from __future__ import annotations

import torch

# Up to this many values torch works in the calling thread. Larger pieces are shared among threads that wait
# for each other, which on a busy machine takes many times as long.
_SERIAL = 2**15


def convert_into(target: torch.Tensor, values: torch.Tensor) -> bool:
    """Write `values` (any number format, 1-d) into the beginning of `target`, rounded to its format.

    True when some of them are beyond its range: fp16 ends at 65504, fp8 (e4m3) at 448.
    """
    limit = _limit(values.dtype, target.dtype)
    beyond = False
    for start in range(0, values.numel(), _SERIAL):
        piece = values[start : start + _SERIAL]
        target[start : start + piece.numel()].copy_(piece)
        if limit is not None:
            low, high = torch.aminmax(piece.float())
            beyond |= bool(low < -limit or high > limit)
    return beyond


def _limit(source: torch.dtype, target: torch.dtype) -> float | None:
    """The largest value of `target`, None when `source` holds none that is larger."""
    if not (source.is_floating_point and target.is_floating_point):
        return None
    limit = torch.finfo(target).max
    return limit if torch.finfo(source).max > limit else None
