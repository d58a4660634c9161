"""Sums of models: the methods of the WebUI's own merger, and SuperMerger's for three models.

Written exactly in the WebUI's order of operations, so that half-precision tensors give its results bit
for bit.
"""
from __future__ import annotations

from torch import Tensor

from lib_sdtrain.merge.methods.base import A, B, C, Method, a_at_zero, a_to_b


def weighted_sum(a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    """(1 - alpha) A + alpha B. Source: AUTOMATIC1111 WebUI, "Weighted sum"."""
    return (1 - alpha) * a + alpha * b


def add_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: float) -> Tensor:
    """A + alpha (B - C). Source: AUTOMATIC1111 WebUI, "Add difference"."""
    return a + alpha * (b - c)


def weighted_sum_in_place(a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    """`weighted_sum` into `a`. Not fused: a multiply-add rounds otherwise, and not on every processor alike."""
    return a.mul_(1 - alpha).add_(b.mul_(alpha))


def add_difference_in_place(a: Tensor, b: Tensor, c: Tensor, *, alpha: float) -> Tensor:
    """`add_difference` into `a`."""
    return a.add_(b.sub_(c).mul_(alpha))


def triple_sum(a: Tensor, b: Tensor, c: Tensor, *, alpha: float, beta: float) -> Tensor:
    """(1 - alpha - beta) A + alpha B + beta C. Source: SuperMerger, "Triple sum"."""
    return (1 - alpha - beta) * a + alpha * b + beta * c


def sum_twice(a: Tensor, b: Tensor, c: Tensor, *, alpha: float, beta: float) -> Tensor:
    """(1 - beta) ((1 - alpha) A + alpha B) + beta C. Source: SuperMerger, "sum Twice"."""
    return (1 - beta) * ((1 - alpha) * a + alpha * b) + beta * c


def no_interpolation(a: Tensor) -> Tensor:
    """A. Source: AUTOMATIC1111 WebUI, "No interpolation"."""
    return a


def _triple_exact(alpha: float, beta: float) -> str | None:
    return {(0, 0): A, (1, 0): B, (0, 1): C}.get((alpha, beta))


def _twice_exact(alpha: float, beta: float) -> str | None:
    if beta == 1:
        return C
    return a_to_b(alpha, 0) if beta == 0 else None


METHODS = (
    Method(
        "weighted_sum", "Weighted sum", "(1 - α) A + α B",
        "Mixes two models: 0 is A, 1 is B, 0.5 half of each.",
        "AUTOMATIC1111 WebUI", weighted_sum, 2, exact=a_to_b, in_place=weighted_sum_in_place,
    ),
    Method(
        "add_difference", "Add difference", "A + α (B - C)",
        "Adds to A what B learnt since C, the model that B was trained from.",
        "AUTOMATIC1111 WebUI", add_difference, 3, exact=a_at_zero, in_place=add_difference_in_place,
    ),
    Method(
        "triple_sum", "Triple sum", "(1 - α - β) A + α B + β C",
        "Mixes three models at once.",
        "SuperMerger", triple_sum, 3, ("alpha", "beta"), beta=0.25, exact=_triple_exact,
    ),
    Method(
        "sum_twice", "Sum twice", "(1 - β) ((1 - α) A + α B) + β C",
        "Mixes A with B, then the result with C.",
        "SuperMerger", sum_twice, 3, ("alpha", "beta"), beta=0.25, exact=_twice_exact,
    ),
    Method(
        "no_interpolation", "No interpolation", "A",
        "Keeps A, to bake in a VAE or LoRAs, to adjust or to convert.",
        "AUTOMATIC1111 WebUI", no_interpolation, 1, (), exact=lambda alpha, beta: A,
    ),
)  # fmt: skip
