"""Means other than the arithmetic one."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from lib_sdtrain.merge.methods.base import Method, a_to_b

_NEARLY_PARALLEL = 1e-6


def slerp(a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    """Along the arc between the directions of A and B, with the length going linearly from |A| to |B|.

    ((1 - alpha)|A| + alpha|B|) (sin((1 - alpha) t) A/|A| + sin(alpha t) B/|B|) / sin t, t the angle between
    the whole tensors; the plain weighted sum where one is 0 or they point the same or opposite ways.
    Source: Shoemake 1985, "Animating rotation with quaternion curves"; sd-mecha.
    """
    length_a, length_b = torch.linalg.vector_norm(a).item(), torch.linalg.vector_norm(b).item()
    product = length_a * length_b
    cosine = (torch.sum(a * b).item() / product) if product else 1.0
    sine = math.sqrt(max(0.0, 1 - min(1.0, abs(cosine)) ** 2))
    if sine < _NEARLY_PARALLEL:
        return (1 - alpha) * a + alpha * b
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    length = (1 - alpha) * length_a + alpha * length_b
    of_a = length * math.sin((1 - alpha) * angle) / (sine * length_a)
    of_b = length * math.sin(alpha * angle) / (sine * length_b)
    return of_a * a + of_b * b


def geometric(a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    """Re(A^(1 - alpha) B^alpha) = |A|^(1 - alpha) |B|^alpha cos(pi ((1 - alpha) [A < 0] + alpha [B < 0])).

    The principal branch of the complex power, so that negative weights have a mean too. Source: sd-mecha.
    """
    size = a.abs().pow(1 - alpha) * b.abs().pow(alpha)
    turn = (1 - alpha) * (a < 0).to(a.dtype) + alpha * (b < 0).to(a.dtype)
    return size * torch.cos(math.pi * turn)


METHODS = (
    Method(
        "slerp", "SLERP", "A to B along the arc",
        "As weighted sum, but keeps the size of the weights when the models point in different directions.",
        "Shoemake 1985", slerp, 2, elementwise=False, exact=a_to_b,
    ),
    Method(
        "geometric", "Geometric mean", "Re(A^(1-α) B^α)",
        "Weights that are small in either model become small; signs must agree to count.",
        "sd-mecha", geometric, 2, exact=a_to_b,
    ),
)  # fmt: skip
