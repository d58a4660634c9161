"""DPM-Solver++: exponential integrators on the denoised picture, in t = -log sigma.

Source: Lu et al. 2022, DPM-Solver++ (arXiv 2211.01095); the stochastic forms as in k-diffusion (Crowson).
With h = t_next - t, one exact step of a constant D is x <- e^-h x + (1 - e^-h) D.
"""
from __future__ import annotations

import math

import torch

from lib_sdtrain.sample.samplers.steps import Denoise, Noise, ancestral, pairs


def _t(sigma: float) -> float:
    return -math.log(sigma)


def _move(x: torch.Tensor, denoised: torch.Tensor, h: float) -> torch.Tensor:
    return math.exp(-h) * x - math.expm1(-h) * denoised


def _phi_2(h: float) -> float:
    return math.expm1(-h) / h + 1


def dpmpp_2s_ancestral(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> torch.Tensor:
    """Second order single step through the middle in t, then ancestral noise."""
    for sigma, sigma_next in pairs(sigmas):
        denoised = model(x, sigma)
        sigma_down, sigma_up = ancestral(sigma, sigma_next, eta)
        if sigma_down == 0:
            x = x + (x - denoised) / sigma * (sigma_down - sigma)
        else:
            h = _t(sigma_down) - _t(sigma)
            x_mid = _move(x, denoised, h / 2)
            x = _move(x, model(x_mid, math.exp(-(_t(sigma) + h / 2))), h)
        if eta and sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
    return x


def _middle(sigma: float, sigma_next: float) -> tuple[float, float, float]:
    """(sigma, its middle with sigma_next in t, sigma_next) by way of t in float32.

    Brownian noise is resolved to 1e-6 in sigma, about the last bit of a float32; other roundings give other noise.
    """
    t, t_next = (-torch.tensor(value).log() for value in (sigma, sigma_next))
    return tuple(torch.exp(-value).item() for value in (t, t + (t_next - t) * 0.5, t_next))


def dpmpp_sde(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> torch.Tensor:
    """Second order single step with noise in both halves (r = 1/2)."""
    for sigma, sigma_next in pairs(sigmas):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = x + (x - denoised) / sigma * (sigma_next - sigma)
            continue
        start, middle, end = _middle(sigma, sigma_next)
        down, up = ancestral(start, middle, eta)
        x_mid = _move(x, denoised, _t(down) - _t(start)) + noise(start, middle) * (s_noise * up)
        denoised_mid = model(x_mid, middle)
        down, up = ancestral(start, end, eta)
        x = _move(x, denoised_mid, _t(down) - _t(start)) + noise(start, end) * (s_noise * up)
    return x


def dpmpp_2m(model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Second order multistep: D is extrapolated from the last two."""
    old, h_last = None, 0.0
    for sigma, sigma_next in pairs(sigmas):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        h = _t(sigma_next) - _t(sigma)
        if old is None:
            x = _move(x, denoised, h)
        else:
            r = h_last / h
            x = _move(x, (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old, h)
        old, h_last = denoised, h
    return x


def dpmpp_2m_sde(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *,
    eta: float = 1.0, s_noise: float = 1.0, heun: bool = False,
) -> torch.Tensor:
    """Second order multistep of the SDE; `heun` chooses the correction 1 - phi_2 instead of the midpoint's 1/2."""
    old, h_last = None, 0.0
    for sigma, sigma_next in pairs(sigmas):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        h = _t(sigma_next) - _t(sigma)
        total = h * (1 + eta)
        x = _move(x, denoised, total)
        if old is not None:
            factor = _phi_2(total) if heun else -0.5 * math.expm1(-total)
            x = x + factor * (h / h_last) * (denoised - old)
        if eta:
            spread = sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise
            x = x + noise(sigma, sigma_next) * spread
        old, h_last = denoised, h
    return x


def dpmpp_3m_sde(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> torch.Tensor:
    """Third order multistep of the SDE: first and second differences of D over the last three steps."""
    past: list[tuple[torch.Tensor, float]] = []  # (denoised, h) of earlier steps, latest first
    for sigma, sigma_next in pairs(sigmas):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        h = _t(sigma_next) - _t(sigma)
        total = h * (eta + 1)
        x = _move(x, denoised, total) + _differences(denoised, h, total, past)
        if eta:
            spread = sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise
            x = x + noise(sigma, sigma_next) * spread
        past = [(denoised, h), *past[:1]]
    return x


def _differences(
    denoised: torch.Tensor, h: float, total: float, past: list[tuple[torch.Tensor, float]]
) -> torch.Tensor | float:
    """phi_2 D' - phi_3 D'' from what is known so far."""
    if not past:
        return 0.0
    phi_2 = _phi_2(total)
    last, h_1 = past[0]
    first = (denoised - last) / (h_1 / h)
    if len(past) == 1:
        return phi_2 * first
    before, h_2 = past[1]
    r0, r1 = h_1 / h, h_2 / h
    second = (last - before) / r1
    d1 = first + (first - second) * (r0 / (r0 + r1))
    d2 = (first - second) / (r0 + r1)
    return phi_2 * d1 - (phi_2 / total - 0.5) * d2
