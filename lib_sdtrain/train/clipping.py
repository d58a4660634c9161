"""Gradients scaled down to a common norm, with `torch.nn.utils.clip_grad_norm_`'s numbers."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def norms_of(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """The norm of each."""
    return torch._foreach_norm(gradients)


def share_of(norms: Sequence[Tensor], largest: float) -> Tensor:
    """What to multiply gradients of these norms with, so that the norm of all of them is at most `largest`.

    From 1 on nothing is to be done: `clip_grad_norm_` multiplies by 1 then, on a CPU a twelfth of a step of SD1.5.
    """
    return largest / (torch.linalg.vector_norm(torch.stack(list(norms))) + 1e-6)


def scale(gradients: Sequence[Tensor], share: Tensor) -> None:
    """Multiply with what `share_of` said, where there is something to do."""
    if not share >= 1:  # also what is no number
        torch._foreach_mul_(gradients, share)


def clip(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale all gradients down to a common norm of `largest`."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        scale(gradients, share_of(norms_of(gradients), largest))
