"""Methods that need only model A. Source: SuperMerger, "self" and "plus random"."""
from __future__ import annotations

import torch
from torch import Tensor

from lib_sdtrain.merge.methods.base import A, Method, a_at_zero

_OUTPUTS_AND_NORMS = ("to_out", "proj_out", "norm")


def self_scale(a: Tensor, *, alpha: float) -> Tensor:
    """alpha A."""
    return a * alpha


def self_noise(a: Tensor, *, alpha: float, generator: torch.Generator) -> Tensor:
    """A + alpha N(0, 1)."""
    return a + alpha * torch.randn(a.shape, generator=generator)


METHODS = (
    Method(
        "self", "Self", "α A",
        "Scales A itself; outputs of attention, projections and norms are left alone.",
        "SuperMerger", self_scale, 1, exact=lambda alpha, beta: A if alpha == 1 else None, skips=_OUTPUTS_AND_NORMS,
    ),
    Method(
        "self_noise", "Self plus noise", "A + α N(0, 1)",
        "Adds noise to A, to see which blocks matter; small α.",
        "SuperMerger", self_noise, 1, ("alpha", "generator"), elementwise=False, exact=a_at_zero,
    ),
)  # fmt: skip
