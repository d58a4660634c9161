"""The noise levels a model was trained on, and the way between a level (sigma) and its timestep.

sigma = sqrt((1 - a) / a) with a = alphas_cumprod, so that x = x0 + sigma · noise (Karras et al. 2022).
All arithmetic is float32: a timestep is read off log sigma, and the last bits of it show in the picture.
"""
from __future__ import annotations

import torch

_LCM_STEPS = 50


def append_zero(sigmas: torch.Tensor) -> torch.Tensor:
    """`sigmas` followed by 0."""
    return torch.cat([sigmas, sigmas.new_zeros([1])])


class NoiseLevels:
    """A table of sigmas, rising with the timestep; between its entries log sigma is linear in t.

    `quantize` rounds to the nearest entry instead. Source: k-diffusion, external.py (DiscreteSchedule).
    """

    def __init__(self, alphas_cumprod: torch.Tensor, quantize: bool = False) -> None:
        self.alphas_cumprod = alphas_cumprod.cpu()
        sigmas = ((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5
        self.sigmas = sigmas.float()
        self.log_sigmas = sigmas.log()  # a table in half precision is a setting of the WebUI, and rounds here
        self.quantize = quantize

    @property
    def sigma_min(self) -> float:
        """The lowest level."""
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        """The highest level."""
        return self.sigmas[-1].item()

    def t(self, sigma: torch.Tensor | float) -> torch.Tensor:
        """The (fractional) timestep of `sigma`, (1,).

        A number takes on the precision of the table, as with the schedules; a tensor (1,) is read in its own, as
        when the model is called. They differ where the table is in half precision.
        """
        log_sigma = torch.as_tensor(sigma, dtype=torch.float32).log()
        distances = log_sigma - self.log_sigmas
        if self.quantize:
            return distances.abs().argmin()[None].float()
        low = (distances >= 0).cumsum(0).argmax().clamp(max=len(self.log_sigmas) - 2)[None]
        log_low, log_high = self.log_sigmas[low], self.log_sigmas[low + 1]
        weight = ((log_low - log_sigma) / (log_low - log_high)).clamp(0, 1)
        return (1 - weight) * low + weight * (low + 1)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """The sigma of (fractional) timesteps `t`."""
        t = t.float()
        low, high, weight = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp()

    def uniform(self, n: int) -> torch.Tensor:
        """n levels spread evenly over the timesteps, then 0."""
        return append_zero(self.sigma(torch.linspace(len(self.sigmas) - 1, 0, n)))


class ConsistencyLevels(NoiseLevels):
    """The 50 levels that latent consistency models were distilled on: timesteps 19, 39, ... 999.

    Source: Luo et al. 2023, Latent Consistency Models; AUTOMATIC1111 WebUI 1.10.1, sd_samplers_lcm.py.
    """

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        self.skip = len(alphas_cumprod) // _LCM_STEPS
        super().__init__(alphas_cumprod[self.skip - 1 :: self.skip].float())

    def t(self, sigma: torch.Tensor | float) -> torch.Tensor:
        """The timestep of the nearest level, (1,)."""
        log_sigma = torch.as_tensor(sigma, dtype=torch.float32).log()
        nearest = (log_sigma - self.log_sigmas).abs().argmin()[None]
        return nearest * self.skip + (self.skip - 1)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """The sigma of timesteps `t` of the full model."""
        index = ((t - (self.skip - 1)) / self.skip).float()
        return super().sigma(index.clamp(0, len(self.sigmas) - 1))

    def uniform(self, n: int) -> torch.Tensor:
        """n levels spread evenly over the timesteps, then 0."""
        start, end = self.t(self.sigmas[-1]), self.t(self.sigmas[0])
        return append_zero(self.sigma(torch.linspace(start.item(), end.item(), n)))
