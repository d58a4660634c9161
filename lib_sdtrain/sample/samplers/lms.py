"""Linear multistep: the slopes of up to four steps, integrated as a polynomial (Adams-Bashforth on uneven steps)."""
from __future__ import annotations

import numpy as np
import torch

from lib_sdtrain.sample.samplers.steps import Denoise, Noise, pairs

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)  # exact for the cubics below


def coefficients(sigmas: list[float], i: int, order: int) -> list[float]:
    """Integrals over [sigma_i, sigma_i+1] of the Lagrange basis on sigma_i, sigma_i-1, ... (`order` of them)."""
    known = np.array([sigmas[i - k] for k in range(order)])
    half = (sigmas[i + 1] - sigmas[i]) / 2
    tau = sigmas[i] + half * (1 + _NODES)
    found = []
    for j in range(order):
        others = np.delete(known, j)
        basis = np.prod((tau[:, None] - others) / (known[j] - others), axis=1)
        found.append(float(half * (_WEIGHTS * basis).sum()))
    return found


def lms(model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, order: int = 4) -> torch.Tensor:
    """One evaluation a step."""
    values = sigmas.tolist()
    slopes: list[torch.Tensor] = []
    for i, (sigma, _) in enumerate(pairs(sigmas)):
        slopes = [(x - model(x, sigma)) / sigma, *slopes[: order - 1]]
        weights = coefficients(values, i, len(slopes))
        x = x + sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    return x
