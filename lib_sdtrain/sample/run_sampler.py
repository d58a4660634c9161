"""Calls a sampler by name with the noise and settings that its kind wants."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lib_sdtrain.sample.brownian import BrownianNoise
from lib_sdtrain.sample.denoiser import (
    ApplyUNet,
    GuidedModel,
    Predict,
    denoised_by_consistency,
    denoised_from_noise,
    denoised_from_velocity,
    noise_at_timestep,
    noise_from_velocity,
)
from lib_sdtrain.sample.noise import ImageNoise, source
from lib_sdtrain.sample.plan import Extras, Levels
from lib_sdtrain.sample.samplers import ddim, dpm2, dpm_solver, dpmpp, euler, lcm, lms, restart, unipc
from lib_sdtrain.sample.samplers.registry import CONSISTENCY, SPAN, TIMESTEP, Sampler
from lib_sdtrain.settings.sample import SampleOptions

_SIGMA = {
    "euler": euler.euler, "euler_ancestral": euler.euler_ancestral, "heun": euler.heun, "dpm2": dpm2.dpm2,
    "dpm2_ancestral": dpm2.dpm2_ancestral, "lms": lms.lms, "restart": restart.restart, "lcm": lcm.lcm,
    "dpmpp_2m": dpmpp.dpmpp_2m, "dpmpp_2s_ancestral": dpmpp.dpmpp_2s_ancestral, "dpmpp_sde": dpmpp.dpmpp_sde,
    "dpmpp_2m_sde": dpmpp.dpmpp_2m_sde, "dpmpp_3m_sde": dpmpp.dpmpp_3m_sde,
}


def prediction(apply: ApplyUNet, sampler: Sampler, levels: Levels, velocity: bool) -> Predict:
    """What the sampler's kind asks of the model. Consistency models predict noise whatever the family says."""
    if sampler.kind == CONSISTENCY:
        return denoised_by_consistency(apply, levels.levels)
    if sampler.kind == TIMESTEP:
        return noise_from_velocity(apply, levels.table) if velocity else noise_at_timestep(apply)
    make = denoised_from_velocity if velocity else denoised_from_noise
    return make(apply, levels.levels)


@dataclass(frozen=True)
class Run:
    """A sampler with everything that it draws from and listens to."""

    sampler: Sampler
    levels: Levels
    noise: ImageNoise
    extras: Extras
    options: SampleOptions
    generator: torch.Generator
    """Stands in for torch's global one where the WebUI draws from that."""

    def __call__(self, model: GuidedModel, x: torch.Tensor) -> torch.Tensor:
        """The latents at the end of the pass, from the noised latents at its start."""
        if self.sampler.kind == TIMESTEP:
            return self._over_timesteps(model, x)
        if self.sampler.kind == SPAN:
            return self._over_span(model, x)
        return self._over_sigmas(model, x)

    def _keywords(self) -> dict[str, object]:
        found: dict[str, object] = {"eta": self.extras.eta} if self.sampler.takes_eta else {}
        if "s_churn" in self.sampler.extras:
            found["churn"] = self.extras.churn
        elif "s_noise" in self.sampler.extras:
            found["s_noise"] = self.extras.s_noise
        return found | ({"heun": True} if self.sampler.heun else {})

    def _over_sigmas(self, model: GuidedModel, x: torch.Tensor) -> torch.Tensor:
        noise = self._brownian(x) if self.sampler.brownian and len(self.levels.visit) > 1 else self._next
        return _SIGMA[self.sampler.function](model, x, self.levels.visit, noise, **self._keywords())

    def _over_span(self, model: GuidedModel, x: torch.Tensor) -> torch.Tensor:
        if self.levels.span is None:
            return x
        if self.sampler.function == "dpm_adaptive":
            return dpm_solver.dpm_adaptive(model, x, self.levels.span, self._next, **self._keywords())
        nfe = self.levels.steps if self.levels.visit is self.levels.whole else len(self.levels.visit) - 1
        return dpm_solver.dpm_fast(model, x, self.levels.span, self._next, nfe=nfe, **self._keywords())

    def _over_timesteps(self, model: GuidedModel, x: torch.Tensor) -> torch.Tensor:
        table, visit = self.levels.table, self.levels.visit
        if self.sampler.function == "unipc":
            options = unipc.UniPCOptions(
                self.options.uni_pc_variant, self.options.uni_pc_skip_type, self.options.uni_pc_order,
                self.options.uni_pc_lower_order_final,
            )
            return unipc.unipc(model, x, len(visit), table, options, self.levels.unipc_start)
        if self.sampler.function == "plms":
            return ddim.plms(model, x, visit, table)
        if self.sampler.function == "ddim_cfgpp":
            return ddim.ddim_cfgpp(_both(model), x, visit, table, self.noise.next, self.extras.eta)
        return ddim.ddim(model, x, visit, table, self.noise.next, self.extras.eta)

    def _next(self, sigma: float, sigma_next: float) -> torch.Tensor:
        return self.noise.next()

    def _brownian(self, x: torch.Tensor) -> BrownianNoise:
        plan = self.noise.plan

        def draw(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
            return source(plan.kind, seed, x.device).randn(shape).to(x.device)

        if self.options.no_dpmpp_sde_batch_determinism:
            seed = torch.randint(0, 2**63 - 1, [], generator=self.generator).item()
            return BrownianNoise([seed], x.shape, self.levels.visit, draw, joined=True)
        return BrownianNoise(plan.seeds, x.shape[1:], self.levels.whole, draw)


def _both(model: GuidedModel) -> Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]:
    def call(x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        guided = model(x, t)
        return guided, model.last_uncond
    return call
