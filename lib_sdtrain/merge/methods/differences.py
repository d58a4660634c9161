"""Methods that work on differences between models."""
from __future__ import annotations

import torch
from torch import Tensor

from lib_sdtrain.merge.methods.base import Method, a_at_zero
from lib_sdtrain.merge.methods.filters import gaussian_filter, median_filter

TRAIN_DIFFERENCE_GAIN = 1.8
_COSINE_EPS = 1e-8


def smooth_add_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: float) -> Tensor:
    """A + alpha gaussian_{sigma 1}(median_{3}(B - C)), both filters over all dimensions of the tensor.

    Source: SuperMerger, "smoothAdd" (scipy.ndimage's filters with their defaults).
    """
    return a + alpha * gaussian_filter(median_filter(b - c))


def train_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: float) -> Tensor:
    """A + 1.8 alpha m (B - C) with m = |B - A| / (|B - C| + |B - A|), 0 where both are 0.

    Source: SuperMerger, "trainDifference": as if A had been trained on what B was trained on.
    """
    learnt = b - c
    apart = (b - a).abs()
    total = learnt.abs() + apart
    mask = torch.where(total == 0, torch.zeros_like(total), apart / total)
    return a + mask * learnt * (alpha * TRAIN_DIFFERENCE_GAIN)


def multiply_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: float, beta: float) -> Tensor:
    """C + copysign(|A - C|^(1 - alpha) |B - C|^alpha, (1 - beta) A + beta B - C). Source: meh."""
    size = (a - c).abs().pow(1 - alpha) * (b - c).abs().pow(alpha)
    return c + torch.copysign(size, (1 - beta) * a + beta * b - c)


def similarity_add_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: float, beta: float) -> Tensor:
    """(1 - s) (A + alpha (B - C)) + s ((1 - alpha / 2) A + (alpha / 2) B).

    s = beta (A B / max(|A|, |B|)^2 + 1) / 2, beta where A and B are both 0: adds where the models differ,
    mixes where they agree. Source: meh.
    """
    largest = torch.maximum(a.abs(), b.abs())
    s = beta * ((a / largest) * (b / largest) + 1) / 2
    s = torch.where(largest == 0, torch.full_like(s, beta), s)
    return (1 - s) * (a + alpha * (b - c)) + s * ((1 - alpha / 2) * a + (alpha / 2) * b)


def extract(a: Tensor, b: Tensor, c: Tensor, *, alpha: float, beta: float, gamma: float) -> Tensor:
    """A + lerp(b', c', alpha) lerp(g, 1 - g, beta), b' = B - A, c' = C - A, g = ((cos(b', c') + 1) / 2)^gamma.

    The cosine is taken along the last dimension. beta 0 keeps what B and C have in common, 1 what they
    have not. Source: SuperMerger, "extract".
    """
    from_b, from_c = b - a, c - a
    cosine = torch.cosine_similarity(from_b, from_c, dim=-1, eps=_COSINE_EPS).clamp(-1, 1).unsqueeze(-1)
    common = ((cosine + 1) / 2) ** gamma
    return a + ((1 - alpha) * from_b + alpha * from_c) * ((1 - beta) * common + beta * (1 - common))


METHODS = (
    Method(
        "smooth_add_difference", "Smooth add difference", "A + α smooth(B - C)",
        "Add difference, with outliers and fine noise taken out of the difference; slow.",
        "SuperMerger", smooth_add_difference, 3, elementwise=False, exact=a_at_zero,
    ),
    Method(
        "train_difference", "Train difference", "A + 1.8 α |B-A| / (|B-C| + |B-A|) (B - C)",
        "Adds what B learnt since C, more where A is still far from B, as training would.",
        "SuperMerger", train_difference, 3, exact=a_at_zero,
    ),
    Method(
        "multiply_difference", "Multiply difference", "C ± |A-C|^(1-α) |B-C|^α",
        "Keeps only what both A and B changed since C; β picks whose direction counts.",
        "meh", multiply_difference, 3, ("alpha", "beta"), beta=0.5,
    ),
    Method(
        "similarity_add_difference", "Similarity add difference", "(1-s) (A + α (B-C)) + s ((1-α/2) A + α/2 B)",
        "Adds the difference where A and B disagree, mixes where they agree; β is the strength of that.",
        "meh", similarity_add_difference, 3, ("alpha", "beta"), beta=1.0,
    ),
    Method(
        "extract", "Extract", "A + lerp(B-A, C-A, α) · lerp(g, 1-g, β)",
        "Takes what B and C have in common (β 0) or not in common (β 1), seen from their parent A.",
        "SuperMerger", extract, 3, ("alpha", "beta", "gamma"), beta=0.0, elementwise=False,
    ),
)  # fmt: skip
