"""Restart sampling: Heun steps that jump back up once or twice (Xu et al. 2023, Restart Sampling)."""
from __future__ import annotations

import math

import torch

from lib_sdtrain.sample.levels import append_zero
from lib_sdtrain.sample.samplers.euler import heun_step
from lib_sdtrain.sample.samplers.steps import Denoise, Noise, pairs

_LOW, _HIGH = 0.1, 2.0


def _karras(n: int, low: float, high: float) -> torch.Tensor:
    low, high = low ** (1 / 7.0), high ** (1 / 7.0)
    return append_zero((high + torch.linspace(0, 1, n) * (low - high)) ** 7.0)


def plan(sigmas: torch.Tensor) -> list[tuple[float, float]]:
    """The steps to take. From 20 steps on, some are spent on going from about 0.1 back to about 2 and down again.

    At 36 steps or more twice, with a quarter of the steps each. The restart rules are AUTOMATIC1111 WebUI 1.10.1's.
    """
    count = len(sigmas) - 1
    if count < 20:
        return list(pairs(sigmas))
    again, times = (count // 4, 2) if count >= 36 else (9, 1)
    sigmas = _karras(count - again * times, sigmas[-2].item(), sigmas[0].item())
    low = int((sigmas - _LOW).abs().argmin())
    high = int((sigmas - _HIGH).abs().argmin())
    steps = []
    for index, step in enumerate(pairs(sigmas), start=1):
        steps.append(step)
        if index == low and high < low:
            climb = _karras(again + 1, sigmas[low].item(), sigmas[high].item())[:-1]
            steps += list(pairs(climb)) * times
    return steps


def restart(
    model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, *, s_noise: float = 1.0
) -> torch.Tensor:
    """Two evaluations a step but the last; noise is added where a step starts above the end of the one before."""
    reached = math.inf
    for sigma, sigma_next in plan(sigmas):
        if reached < sigma:
            x = x + noise(reached, sigma) * (s_noise * math.sqrt(sigma**2 - reached**2))
        x = heun_step(model, x, sigma, sigma_next)
        reached = sigma_next
    return x
