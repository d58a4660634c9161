"""Numbers in eight bits: blockwise dynamic quantisation (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
Quantization").

A block of values is divided by its largest (by magnitude) and each value stands for the nearest of 256 numbers, which
are denser towards zero: seven decades, each twice as finely divided as the one below.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

BLOCK = 256
DECADES = 7


def levels(signed: bool) -> Tensor:
    """The 256 numbers, ascending float32: in decade 10^(d - 6), d = 0..6, the middles of 2^d (2^(d + 1) if unsigned)
    equal parts of [0.1, 1], both signs if `signed`; 0 and 1.
    """
    found = [0.0, 1.0]
    for decade in range(DECADES):
        count = 2**decade if signed else 2 ** (decade + 1)
        edges = torch.linspace(0.1, 1.0, count + 1, dtype=torch.float64)
        middles = ((edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - DECADES + 1)).tolist()
        found += middles + ([-middle for middle in middles] if signed else [])
    return torch.tensor(sorted(found), dtype=torch.float64).float()


@dataclass(frozen=True)
class Table:
    """`values` (256,) and `codes` (65536,): the code of the level nearest to every half-precision number."""

    values: Tensor
    codes: Tensor


@cache
def table(signed: bool, device: torch.device) -> Table:
    """The table of signed, or of unsigned numbers.

    The unsigned one, for second moments, does not use its 0: a weight would be divided by next to nothing (Li et al.
    2023, "Memory Efficient Optimizers with 4-bit States").
    """
    values = levels(signed)
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    middles = (values[1:] + values[:-1]) / 2
    codes = torch.bucketize(halves.nan_to_num(0.0, 1.0, -1.0), middles)
    codes = codes if signed else codes.clamp(min=1)
    return Table(values.to(device), codes.roll(2**15).to(torch.uint8).to(device))


def quantise(values: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes (n,) uint8 and each block's largest value by magnitude (n / 256 rounded up,), of float32 values (n,).

    With its sign, so that it is 1 and stands exactly: among the levels there is no -1.
    """
    blocks = torch.nn.functional.pad(values, (0, -len(values) % BLOCK)).reshape(-1, BLOCK)
    scales = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))[:, 0]
    scaled = blocks / torch.where(scales == 0, 1.0, scales)[:, None]
    bits = scaled.half().view(torch.int16).reshape(-1)[: len(values)].int() & 0xFFFF
    return table(signed, values.device).codes.index_select(0, bits), scales


def dequantise(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """The float32 values (n,) that codes (n,) stand for."""
    values = table(signed, codes.device).values.index_select(0, codes.int())
    blocks = torch.nn.functional.pad(values, (0, -len(values) % BLOCK)).reshape(-1, BLOCK)
    return (blocks * scales[:, None]).reshape(-1)[: len(values)]
