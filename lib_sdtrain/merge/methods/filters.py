"""Median and Gaussian filters over all dimensions of a tensor, as scipy.ndimage's with their defaults.

Edges are reflected about the border between values: d c b a | a b c d | d c b a.
"""
from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

_TRUNCATE = 4.0
_PIECE = 2**18


def _reflected(size: int, start: int, stop: int, device: torch.device) -> Tensor:
    index = torch.arange(start, stop, device=device) % (2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)


def median_filter(values: Tensor) -> Tensor:
    """The median of the 3^d neighbours of every value, d the number of dimensions (none: unchanged)."""
    if values.dim() == 0 or values.numel() == 0:
        return values
    rows = values.shape[0]
    step = max(1, _PIECE * rows // values.numel())
    return torch.cat([_median_rows(values, start, min(start + step, rows)) for start in range(0, rows, step)])


def _median_rows(values: Tensor, start: int, stop: int) -> Tensor:
    padded = values.index_select(0, _reflected(values.shape[0], start - 1, stop + 1, values.device))
    for dim, size in enumerate(values.shape[1:], start=1):
        padded = padded.index_select(dim, _reflected(size, -1, size + 1, values.device))
    shape = (stop - start, *values.shape[1:])
    neighbours = []
    for offsets in itertools.product(range(3), repeat=values.dim()):
        view = padded
        for dim, (offset, size) in enumerate(zip(offsets, shape, strict=True)):
            view = view.narrow(dim, offset, size)
        neighbours.append(view)
    return torch.stack(neighbours).median(dim=0).values


def gaussian_filter(values: Tensor, sigma: float = 1.0) -> Tensor:
    """Convolution with exp(-x^2 / (2 sigma^2)), normalised, cut off at 4 sigma, along every dimension."""
    radius = int(_TRUNCATE * sigma + 0.5)
    weights = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-radius, radius + 1)]
    total = math.fsum(weights)
    for dim, size in enumerate(values.shape):
        padded = values.index_select(dim, _reflected(size, -radius, size + radius, values.device))
        smooth = torch.zeros_like(values)
        for offset, weight in enumerate(weights):
            smooth += padded.narrow(dim, offset, size) * (weight / total)
        values = smooth
    return values
