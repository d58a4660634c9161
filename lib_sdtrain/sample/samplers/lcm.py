"""Consistency sampling: denoise, then add fresh noise for the next level (Luo et al. 2023, LCM, algorithm 3)."""
from __future__ import annotations

import torch

from lib_sdtrain.sample.samplers.steps import Denoise, Noise, pairs


def lcm(model: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise) -> torch.Tensor:
    """One evaluation a step."""
    for sigma, sigma_next in pairs(sigmas):
        x = model(x, sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_next
    return x
