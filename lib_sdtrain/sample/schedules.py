"""Schedule types: which noise levels (sigmas) a sampler visits, from high to low.

Each function takes n steps and returns n + 1 sigmas, float32 on the CPU, the last of them 0 (KL Optimal ends
at sigma_min, DDIM may have more). Names, defaults and arithmetic follow AUTOMATIC1111 WebUI 1.10.1, sd_schedulers.py.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lib_sdtrain.sample.levels import NoiseLevels, append_zero
from lib_sdtrain.sample.special import beta_quantile


@dataclass(frozen=True)
class Range:
    """What a schedule may depend on beside the number of steps."""

    levels: NoiseLevels
    sigma_min: float
    sigma_max: float
    rho: float | None = None
    beta: tuple[float, float] = (0.6, 0.6)
    sdxl: bool = False


def uniform(n: int, over: Range) -> torch.Tensor:
    """Evenly spread timesteps of the model."""
    return over.levels.uniform(n)


def karras(n: int, over: Range) -> torch.Tensor:
    """sigma^(1/rho) falls linearly, rho = 7 (Karras et al. 2022, eq. 5)."""
    rho = over.rho or 7.0
    low, high = over.sigma_min ** (1 / rho), over.sigma_max ** (1 / rho)
    return append_zero((high + torch.linspace(0, 1, n) * (low - high)) ** rho)


def exponential(n: int, over: Range) -> torch.Tensor:
    """log sigma falls linearly."""
    return append_zero(torch.linspace(math.log(over.sigma_max), math.log(over.sigma_min), n).exp())


def polyexponential(n: int, over: Range) -> torch.Tensor:
    """log sigma falls as a polynomial of degree rho = 1."""
    ramp = torch.linspace(1, 0, n) ** (over.rho or 1.0)
    log_min, log_max = math.log(over.sigma_min), math.log(over.sigma_max)
    return append_zero(torch.exp(ramp * (log_max - log_min) + log_min))


def _between(n: int, over: Range) -> torch.Tensor:
    start, end = over.levels.t(over.sigma_max), over.levels.t(over.sigma_min)
    return torch.linspace(float(start), float(end), n)


def sgm_uniform(n: int, over: Range) -> torch.Tensor:
    """Evenly spread timesteps, the last of n + 1 left out (Stability-AI's generative-models)."""
    return append_zero(over.levels.sigma(_between(n + 1, over)[:-1]))


def normal(n: int, over: Range) -> torch.Tensor:
    """Evenly spread timesteps from sigma_max to sigma_min."""
    return append_zero(over.levels.sigma(_between(n, over)))


def kl_optimal(n: int, over: Range) -> torch.Tensor:
    """arctan sigma falls linearly (Sabour et al. 2024, Align Your Steps, theorem 3.1); ends at sigma_min."""
    low, high = (torch.tensor(sigma).atan() for sigma in (over.sigma_min, over.sigma_max))
    ramp = torch.arange(n + 1) / n
    return torch.tan(ramp * low + (1.0 - ramp) * high)


_AYS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def align_your_steps(n: int, over: Range) -> torch.Tensor:
    """The optimised levels of Sabour et al. 2024, log-linear in between for other numbers of steps."""
    known = np.array(_AYS_SDXL if over.sdxl else _AYS_SD1)
    if n == len(known):
        return append_zero(torch.tensor(known, dtype=torch.float32))
    places = np.linspace(0, 1, len(known))
    logs = np.interp(np.linspace(0, 1, n), places, np.log(known[::-1]))
    return append_zero(torch.tensor(np.exp(logs)[::-1].copy(), dtype=torch.float32))


def simple(n: int, over: Range) -> torch.Tensor:
    """Every (N / n)-th level of the model from the top."""
    sigmas = over.levels.sigmas
    stride = len(sigmas) / n if n else 0.0
    return append_zero(torch.stack([sigmas[-(1 + int(i * stride))] for i in range(n)]) if n else sigmas[:0])


def ddim(n: int, over: Range) -> torch.Tensor:
    """Levels 1, 1 + s, 1 + 2s, ... with s = N // n, as DDIM takes them; there may be more than n."""
    sigmas = over.levels.sigmas
    stride = max(len(sigmas) // n, 1) if n else len(sigmas)
    return append_zero(sigmas[1::stride].flip(0))


def beta(n: int, over: Range) -> torch.Tensor:
    """Quantiles of a Beta(0.6, 0.6) distribution (Lee et al. 2024, Beta Sampling is All You Need)."""
    a, b = over.beta
    quantiles = [beta_quantile(p, a, b) for p in 1 - np.linspace(0, 1, n)]
    width = over.sigma_max - over.sigma_min
    return torch.tensor([over.sigma_min + q * width for q in quantiles] + [0.0], dtype=torch.float32)


FUNCTIONS: dict[str, Callable[[int, Range], torch.Tensor]] = {
    function.__name__: function
    for function in (
        uniform, karras, exponential, polyexponential, sgm_uniform, kl_optimal, align_your_steps, simple, normal,
        ddim, beta,
    )
}
"""By the short names of `schedule_names`."""
