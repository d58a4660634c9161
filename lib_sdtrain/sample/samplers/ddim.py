"""DDIM, DDIM with CFG++ and PLMS, on the noise, over timesteps of the model.

`timesteps` rise; sampling goes from the last to the second, each step ending at the timestep before.
Source: Song et al. 2020, DDIM, eq. 12 and 16; Chung et al. 2024, CFG++; Liu et al. 2022, PNDM (PLMS).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

Eps = Callable[[torch.Tensor, float], torch.Tensor]
"""model(x, timestep) -> the noise in x."""


class _Level(NamedTuple):
    timestep: float
    next_timestep: float
    alpha: float
    alpha_prev: float
    noise: float
    """sqrt(1 - alpha), in the precision of the table."""

    def moved(self, x: torch.Tensor, eps: torch.Tensor, direction: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
        """sqrt(a_prev) · x0(x, eps) + sqrt(1 - a_prev - sigma²) · direction."""
        x0 = (x - self.noise * eps) / self.alpha**0.5
        return self.alpha_prev**0.5 * x0 + (1 - self.alpha_prev - sigma**2) ** 0.5 * direction

    def sigma(self, eta: float) -> float:
        """eta · sqrt((1 - a_prev) / (1 - a) · (1 - a / a_prev))."""
        ratio = (1 - self.alpha_prev) / (1 - self.alpha) * (1 - self.alpha / self.alpha_prev)
        return eta * float(np.sqrt(ratio))


def _levels(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> Iterator[_Level]:
    picked = alphas_cumprod[timesteps]
    alphas, noises = picked.tolist(), (1 - picked).sqrt().tolist()
    times = timesteps.tolist()
    for index in range(len(times) - 1, 0, -1):
        yield _Level(times[index], times[index - 1], alphas[index], alphas[index - 1], noises[index])


def ddim(
    model: Eps, x: torch.Tensor, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor,
    noise: Callable[[], torch.Tensor], eta: float = 0.0,
) -> torch.Tensor:
    """`eta` = 0 is deterministic, 1 is ancestral."""
    for level in _levels(timesteps, alphas_cumprod):
        eps = model(x, level.timestep)
        sigma = level.sigma(eta)
        x = level.moved(x, eps, eps, sigma)
        if sigma:
            x = x + sigma * noise()
    return x


def ddim_cfgpp(
    model: Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]], x: torch.Tensor,
    timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, noise: Callable[[], torch.Tensor], eta: float = 0.0,
) -> torch.Tensor:
    """The guided noise gives x0, the unconditional noise the direction; `model` returns both in this order."""
    for level in _levels(timesteps, alphas_cumprod):
        eps, eps_uncond = model(x, level.timestep)
        sigma = level.sigma(eta)
        x = level.moved(x, eps, eps_uncond, sigma)
        if sigma:
            x = x + sigma * noise()
    return x


def _adams_bashforth(eps: torch.Tensor, past: list[torch.Tensor]) -> torch.Tensor:
    if len(past) == 1:
        return (3 * eps - past[0]) / 2
    if len(past) == 2:
        return (23 * eps - 16 * past[0] + 5 * past[1]) / 12
    return (55 * eps - 59 * past[0] + 37 * past[1] - 9 * past[2]) / 24


def plms(model: Eps, x: torch.Tensor, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Adams-Bashforth on the noise, up to order 4; the first step is an improved Euler step (two evaluations)."""
    past: list[torch.Tensor] = []  # latest first
    for level in _levels(timesteps, alphas_cumprod):
        eps = model(x, level.timestep)
        if past:
            slope = _adams_bashforth(eps, past)
        else:
            slope = (eps + model(level.moved(x, eps, eps), level.next_timestep)) / 2
        x = level.moved(x, slope, slope)
        past = [eps, *past[:2]]
    return x
