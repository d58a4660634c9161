"""Noise schedules of the DDPM forward process.

The tables are those of Stable Diffusion's own code (Rombach et al. 2022, `ldm` and `sgm`): betas whose square
roots are evenly spaced, computed in double precision and stored as float32.
"""
from __future__ import annotations

import torch
from torch import Tensor

TIMESTEPS = 1000
LINEAR_START = 0.00085
LINEAR_END = 0.012


def scaled_linear_betas(timesteps: int = TIMESTEPS, start: float = LINEAR_START, end: float = LINEAR_END) -> Tensor:
    """Betas, shape (timesteps,), float64: linspace(sqrt(start), sqrt(end)) squared."""
    return torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64) ** 2


def alphas_cumprod(timesteps: int = TIMESTEPS, start: float = LINEAR_START, end: float = LINEAR_END) -> Tensor:
    """The cumulative product of 1 - beta, shape (timesteps,), float32 rounded once from float64."""
    return torch.cumprod(1.0 - scaled_linear_betas(timesteps, start, end), dim=0).float()


def rescale_zero_terminal_snr(alphas_cumprod: Tensor, last: float = 0.0) -> Tensor:
    """Shift and scale sqrt(alphas_cumprod) so that the last step is pure noise and the first stays as it is.

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1. Computed in the
    dtype given. `last` replaces the final zero, for samplers that divide by it (the WebUI uses 4.8973e-08).
    """
    root = alphas_cumprod.sqrt()
    first, terminal = root[0], root[-1]
    rescaled = ((root - terminal) * (first / (first - terminal))) ** 2
    rescaled[-1] = last
    return rescaled


def snr(alphas_cumprod: Tensor) -> Tensor:
    """Signal-to-noise ratio of each step, alphas_cumprod / (1 - alphas_cumprod)."""
    return alphas_cumprod / (1.0 - alphas_cumprod)
