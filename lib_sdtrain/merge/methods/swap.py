"""Swapping whole rows or columns of tensors instead of mixing their values. Source: SuperMerger, "tensor"."""
from __future__ import annotations

from torch import Tensor

from lib_sdtrain.merge.methods.base import Method

WIDE = 100


def _swapped(a: Tensor, b: Tensor, dim: int, size: int, alpha: float, beta: float) -> Tensor:
    """Of `size` slices along `dim`, those of [beta, alpha + beta) come from B; past 1 they wrap round to 0."""
    wraps = alpha + beta > 1
    start, stop = (alpha + beta - 1, beta) if wraps else (beta, alpha + beta)
    inner, outer = (a, b) if wraps else (b, a)
    first, last = (min(max(int(size * edge), 0), a.shape[dim]) for edge in (start, stop))
    result = outer.clone()
    if last > first:
        result.narrow(dim, first, last - first).copy_(inner.narrow(dim, first, last - first))
    return result


def tensor_swap(a: Tensor, b: Tensor, *, alpha: float, beta: float) -> Tensor:
    """A, with rows [int(n beta), int(n (alpha + beta))) of the n along dimension 0 taken from B."""
    return _swapped(a, b, 0, a.shape[0], alpha, beta)


def tensor_swap_columns(a: Tensor, b: Tensor, *, alpha: float, beta: float) -> Tensor:
    """As `tensor_swap`, along dimension 1 where it is wider than 100; narrower tensors swap rows."""
    dim = 1 if a.dim() > 1 and a.shape[1] > WIDE else 0
    return _swapped(a, b, dim, a.shape[dim], alpha, beta)


METHODS = (
    Method(
        "tensor_swap", "Tensor swap", "rows β to α+β from B, the rest from A",
        "Takes a share α of each tensor's rows from B unmixed; β says where they begin.",
        "SuperMerger", tensor_swap, 2, ("alpha", "beta"), beta=0.0, elementwise=False,
    ),
    Method(
        "tensor_swap_columns", "Tensor swap (columns)", "columns β to α+β from B, the rest from A",
        "As tensor swap, but columns where a tensor has more than 100 of them.",
        "SuperMerger", tensor_swap_columns, 2, ("alpha", "beta"), beta=0.0, elementwise=False,
    ),
)  # fmt: skip
