"""What the samplers share: pairs of sigmas, the ancestral split of a step, and the churn of Karras et al."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch

Denoise = Callable[[torch.Tensor, float], torch.Tensor]
"""model(x, sigma) -> the denoised x, all (B, C, H, W)."""
Noise = Callable[[float, float], torch.Tensor]
"""noise(sigma, sigma_next) -> unit normal noise like x; every call is the next draw of the image's generator."""


def pairs(sigmas: torch.Tensor) -> Iterator[tuple[float, float]]:
    """(sigma_i, sigma_i+1) from first to last."""
    values = sigmas.tolist()
    yield from pairwise(values)


Level = TypeVar("Level", float, torch.Tensor)


def ancestral(sigma: Level, sigma_next: Level, eta: float) -> tuple[Level, Level | float]:
    """(sigma_down, sigma_up): go down to sigma_down without noise, then add noise of sigma_up; eta = 0 adds none.

    sigma_up² = eta² · sigma_next² (sigma² - sigma_next²) / sigma², sigma_down² = sigma_next² - sigma_up².
    """
    if not eta or sigma_next == 0:
        return sigma_next, 0.0
    up = eta * max(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2, 0.0) ** 0.5
    up = min(sigma_next, up)
    return max(sigma_next**2 - up**2, 0.0) ** 0.5, up


@dataclass(frozen=True)
class Churn:
    """The stochastic part of Karras et al. 2022, algorithm 2: S_churn, S_tmin, S_tmax, S_noise."""

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def apply(self, x: torch.Tensor, sigma: float, steps: int, noise: Noise) -> tuple[torch.Tensor, float]:
        """x raised to sigma_hat = sigma (1 + gamma). Draws at every step of a churned run, used or not."""
        if self.s_churn <= 0:
            return x, sigma
        eps = noise(sigma, sigma) * self.s_noise
        if not self.s_tmin <= sigma <= self.s_tmax:
            return x, sigma
        sigma_hat = sigma * (min(self.s_churn / steps, math.sqrt(2) - 1) + 1)
        return x + eps * math.sqrt(sigma_hat**2 - sigma**2), sigma_hat


NO_CHURN = Churn()
