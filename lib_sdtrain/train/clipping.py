"""Gradients scaled down to a common norm, with `torch.nn.utils.clip_grad_norm_`'s numbers."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lib_sdtrain.train.soundness import NotFiniteError


def norms_of(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """The norm of each."""
    return torch._foreach_norm(gradients)


def share_of(norms: Tensor, largest: float) -> Tensor | None:
    """What to multiply gradients of these norms (N,) with, so that the norm of all of them is at most `largest`.

    None where nothing is to be done: `clip_grad_norm_` multiplies by 1 then, on a CPU a twelfth of a step of SD1.5.
    """
    if not norms.numel():
        return None
    share = largest / (torch.linalg.vector_norm(norms) + 1e-6)
    return None if share >= 1 else share  # one that is no number is a share


def check_norms(norms: Tensor) -> None:
    """Raise `NotFiniteError` when one of these norms (N,) is no finite number: clipping would ruin all weights."""
    if not norms.isfinite().all():
        raise NotFiniteError("a gradient is infinite or no number")


def clip(parameters: Iterable[nn.Parameter], largest: float, checked: bool = True) -> None:
    """Scale all gradients down to a common norm of `largest`.

    Raises `NotFiniteError` for gradients that are no numbers, unless they are not `checked`: a loss scale skips them.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(norms_of(gradients)) if gradients else torch.empty(0)
    if checked:
        check_norms(norms)
    share = share_of(norms, largest)
    if share is not None:
        torch._foreach_mul_(gradients, share)
