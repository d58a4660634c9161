"""Cosine merges: parts in which A and B point the same way stay A's, the rest comes from B.

Source: SuperMerger, "cosineA" and "cosineB". A first pass over the model finds the range of similarities.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from lib_sdtrain.merge.methods.base import Method

_VAE = ("first_stage_model.",)


def _similarity(columns_a: Tensor, columns_b: Tensor) -> Tensor:
    per_column = cosine_similarity(columns_a, columns_b, dim=0)
    whole = cosine_similarity(columns_a.reshape(-1), columns_b.reshape(-1), dim=0)
    return (per_column + whole) / 2


def _mix(a: Tensor, b: Tensor, likeness: Tensor, low: float, high: float) -> Tensor:
    """B (1 - k) + A k with k the likeness; A where the model has one likeness throughout (low == high)."""
    if high <= low:
        return a.clone()
    k = likeness.clamp(0, 1)
    return b * (1 - k) + a * k


def _scaled(similarity: Tensor, low: float, high: float) -> Tensor:
    return (similarity - low) / (high - low) if high > low else torch.ones_like(similarity)


def survey_a(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the unit-normalised columns (along dimension 0) of A and B."""
    return cosine_similarity(normalize(a, dim=0), normalize(b, dim=0), dim=0).reshape(-1)


def survey_b(a: Tensor, b: Tensor) -> Tensor:
    """Mean of the cosine of each column and of the whole tensors."""
    return _similarity(a, b).reshape(-1)


def cosine_a(a: Tensor, b: Tensor, *, alpha: float, low: float, high: float) -> Tensor:
    """B (1 - k) + A k, k = clip((s - low) / (high - low) - |alpha|, 0, 1), s from unit-normalised columns."""
    s = _similarity(normalize(a, dim=0), normalize(b, dim=0))
    return _mix(a, b, _scaled(s, low, high) - abs(alpha), low, high)


def cosine_b(a: Tensor, b: Tensor, *, alpha: float, low: float, high: float) -> Tensor:
    """B (1 - k) + A k, k = clip((s - low) / (high - low) - alpha, 0, 1), s from the tensors as they are."""
    return _mix(a, b, _scaled(_similarity(a, b), low, high) - alpha, low, high)


METHODS = (
    Method(
        "cosine_a", "Cosine A", "B (1 - k) + A k, k = similarity - |α|",
        "Keeps A where both models agree and takes B's details elsewhere; larger α gives more of B.",
        "SuperMerger", cosine_a, 2, ("alpha", "low", "high"), elementwise=False, skips=_VAE, survey=survey_a,
    ),
    Method(
        "cosine_b", "Cosine B", "B (1 - k) + A k, k = similarity - α",
        "As cosine A, with lengths counted too; larger α gives more of B.",
        "SuperMerger", cosine_b, 2, ("alpha", "low", "high"), elementwise=False, skips=_VAE, survey=survey_b,
    ),
)  # fmt: skip
