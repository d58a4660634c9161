"""DPM-Solver-2 steps through the geometric middle of two sigmas, plain and ancestral.

Source: Lu et al. 2022, DPM-Solver; Karras et al. 2022, algorithm 2 (churn).
"""
from __future__ import annotations

import math

import torch

from lib_sdtrain.sample.samplers.steps import NO_CHURN, Churn, Denoise, Noise, ancestral, pairs


def _step(model: Denoise, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
    d = (x - model(x, sigma)) / sigma
    if sigma_next == 0:
        return x + d * (sigma_next - sigma)
    sigma_mid = math.sqrt(sigma * sigma_next)
    x_mid = x + d * (sigma_mid - sigma)
    d_mid = (x_mid - model(x_mid, sigma_mid)) / sigma_mid
    return x + d_mid * (sigma_next - sigma)


def dpm2(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, churn: Churn = NO_CHURN
) -> torch.Tensor:
    """Two evaluations a step but the last."""
    for sigma, sigma_next in pairs(sigmas):
        x, sigma_hat = churn.apply(x, sigma, len(sigmas) - 1, noise)
        x = _step(model, x, sigma_hat, sigma_next)
    return x


def dpm2_ancestral(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> torch.Tensor:
    """A step to sigma_down, then noise of sigma_up."""
    for sigma, sigma_next in pairs(sigmas):
        sigma_down, sigma_up = ancestral(sigma, sigma_next, eta)
        x = _step(model, x, sigma, sigma_down)
        if eta and sigma_down > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
    return x
