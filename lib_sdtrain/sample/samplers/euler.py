"""Euler, Euler ancestral and Heun steps (Karras et al. 2022, Elucidating the Design Space, algorithm 2)."""
from __future__ import annotations

import torch

from lib_sdtrain.sample.samplers.steps import NO_CHURN, Churn, Denoise, Noise, ancestral, pairs


def euler(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, churn: Churn = NO_CHURN
) -> torch.Tensor:
    """dx/dsigma = (x - D(x, sigma)) / sigma, first order."""
    for sigma, sigma_next in pairs(sigmas):
        x, sigma_hat = churn.apply(x, sigma, len(sigmas) - 1, noise)
        d = (x - model(x, sigma_hat)) / sigma_hat
        x = x + d * (sigma_next - sigma_hat)
    return x


def euler_ancestral(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, eta: float = 1.0
) -> torch.Tensor:
    """An Euler step to sigma_down, then noise of sigma_up."""
    for sigma, sigma_next in pairs(sigmas):
        d = (x - model(x, sigma)) / sigma
        sigma_down, sigma_up = ancestral(sigma, sigma_next, eta)
        x = x + d * (sigma_down - sigma)
        if eta and sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_up
    return x


def heun_step(model: Denoise, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
    """The slope is the mean of those at both ends; Euler's when the step ends at 0."""
    d = (x - model(x, sigma)) / sigma
    x_euler = x + d * (sigma_next - sigma)
    if sigma_next == 0:
        return x_euler
    d_next = (x_euler - model(x_euler, sigma_next)) / sigma_next
    return x + (d + d_next) / 2 * (sigma_next - sigma)


def heun(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, churn: Churn = NO_CHURN
) -> torch.Tensor:
    """Second order; two evaluations a step but the last."""
    for sigma, sigma_next in pairs(sigmas):
        x, sigma_hat = churn.apply(x, sigma, len(sigmas) - 1, noise)
        x = heun_step(model, x, sigma_hat, sigma_next)
    return x
