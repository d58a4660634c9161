"""From the UNet's output to what samplers want, and classifier-free guidance as the WebUI batches it.

A sampler sees `model(x, level)`; the level is a sigma (k-diffusion's samplers) or a timestep (DDIM's). Behind it:
guidance over the prompts that hold at this step, the prediction type, and the UNet.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from lib_sdtrain.sample.conditioning import Cond, Conds, stacked
from lib_sdtrain.sample.levels import ConsistencyLevels, NoiseLevels

ApplyUNet = Callable[[torch.Tensor, torch.Tensor, Cond], torch.Tensor]
"""apply(x, t, cond): the UNet's own output for x (N, C, H, W), timesteps t (N,) and N stacked conditionings."""
Predict = Callable[[torch.Tensor, float, Cond], torch.Tensor]
"""predict(x, level, cond): the denoised x, or the noise in it, as the sampler's kind asks for."""


def _full(x: torch.Tensor, value: float | torch.Tensor) -> torch.Tensor:
    return torch.full((len(x),), float(value), device=x.device)


def denoised_from_noise(apply: ApplyUNet, levels: NoiseLevels) -> Predict:
    """D(x, sigma) = x - sigma · eps(x / sqrt(sigma² + 1), t(sigma)) (Karras et al. 2022, table 1, column iDDPM)."""
    def predict(x: torch.Tensor, sigma: float, cond: Cond) -> torch.Tensor:
        eps = apply(x * _c_in(sigma), _full(x, levels.t(torch.tensor([sigma]))), cond)
        return x - eps * sigma
    return predict


def denoised_from_velocity(apply: ApplyUNet, levels: NoiseLevels) -> Predict:
    """D(x, sigma) = x / (sigma² + 1) - sigma / sqrt(sigma² + 1) · v (Salimans & Ho 2022)."""
    def predict(x: torch.Tensor, sigma: float, cond: Cond) -> torch.Tensor:
        v = apply(x * _c_in(sigma), _full(x, levels.t(torch.tensor([sigma]))), cond)
        return v * (-sigma * _c_in(sigma)) + x / (sigma**2 + 1)
    return predict


def denoised_by_consistency(apply: ApplyUNet, levels: ConsistencyLevels) -> Predict:
    """c_out · D(x, sigma) + c_skip · x with sigma_data = 0.5 and the timestep times 10 (Luo et al. 2023, eq. 9)."""
    plain = denoised_from_noise(apply, levels)

    def predict(x: torch.Tensor, sigma: float, cond: Cond) -> torch.Tensor:
        scaled = float(levels.t(torch.tensor([sigma]))) * 10.0
        c_skip = 0.25 / (scaled**2 + 0.25)
        c_out = scaled / (scaled**2 + 0.25) ** 0.5
        return c_out * plain(x, sigma, cond) + c_skip * x
    return predict


def noise_at_timestep(apply: ApplyUNet) -> Predict:
    """eps(x, t) as the UNet gives it."""
    def predict(x: torch.Tensor, t: float, cond: Cond) -> torch.Tensor:
        return apply(x, _full(x, t), cond)
    return predict


def noise_from_velocity(apply: ApplyUNet, alphas_cumprod: torch.Tensor) -> Predict:
    """eps = sqrt(a) · v + sqrt(1 - a) · x at the whole timestep below t."""
    def predict(x: torch.Tensor, t: float, cond: Cond) -> torch.Tensor:
        a = alphas_cumprod[int(t)].to(x.device)
        return a.sqrt() * apply(x, _full(x, t), cond) + (1 - a).sqrt() * x
    return predict


def _c_in(sigma: float) -> float:
    return 1 / (sigma**2 + 1) ** 0.5


@dataclass(frozen=True)
class Guidance:
    """How the two predictions are put together."""

    scale: float = 7.0
    skip_early: float = 0.0
    """Share of the run at whose start the negative prompt is left out."""
    s_min_uncond: float = 0.0
    """Below this level the negative prompt is left out, at every other step (NGMS)."""
    s_min_uncond_all: bool = False
    pad: bool = False
    pad_v0: bool = False
    batch_cond_uncond: bool = True


@dataclass
class GuidedModel:
    """What the sampler calls: prediction guided by prompt and negative prompt (Ho & Salimans 2022), step by step.

    uncond + sum of weight · scale · (cond - uncond) over the sides of AND (Liu et al. 2022). `steps` is the number of
    evaluations the run is expected to take; `after` is told of every one.
    """

    predict: Predict
    conds: Conds
    guidance: Guidance
    steps: int
    after: Callable[[int], None]
    step: int = 0
    happened: set[str] = field(default_factory=set)
    last_uncond: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        """The guided prediction for the batch x (B, C, H, W)."""
        sides = self.conds.prompt_at(self.step)
        uncond = self.conds.negative_at(self.step)
        skip = self._skips_uncond(level)
        sides, uncond = self._padded(sides, uncond)
        parts, negative = self._predictions(x, level, sides, None if skip else uncond)
        scale = 1.0 if skip else self.guidance.scale
        guided = negative.clone()
        for (weight, _), part in zip(sides, parts, strict=True):
            guided += (part - negative) * (weight * scale)
        self.last_uncond = negative
        self.step += 1
        self.after(self.step)
        return guided

    def _skips_uncond(self, level: float) -> bool:
        guidance = self.guidance
        if guidance.skip_early != 0 and self.step / self.steps <= guidance.skip_early:
            return True
        if (self.step % 2 or guidance.s_min_uncond_all) and guidance.s_min_uncond > 0 and level < guidance.s_min_uncond:
            self.happened |= {"NGMS", "NGMS all steps"}
            return True
        return False

    def _padded(self, sides: list[tuple[float, Cond]], uncond: Cond) -> tuple[list[tuple[float, Cond]], Cond]:
        """Both of one length where that was asked for."""
        length = max(side.tokens for _, side in sides)
        sides = [(weight, side.stretched(length)) for weight, side in sides]
        self.happened -= {"Pad conds", "Pad conds v0"}
        if uncond.tokens == length:
            return sides, uncond
        if self.guidance.pad_v0:
            self.happened.add("Pad conds v0")
            return sides, uncond.stretched(length)
        if self.guidance.pad:
            self.happened.add("Pad conds")
            empty = self.conds.empty
            whole = max(length, uncond.tokens)
            return [(weight, side.filled(whole, empty)) for weight, side in sides], uncond.filled(whole, empty)
        return sides, uncond

    def _predictions(
        self, x: torch.Tensor, level: float, sides: list[tuple[float, Cond]], uncond: Cond | None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The prediction of every side, and that of the negative prompt (of the first side where it is skipped)."""
        conds = [side for _, side in sides]
        if uncond is None:
            parts = self._together(x, level, conds)
            return parts, parts[0]
        if self.guidance.batch_cond_uncond and uncond.tokens == conds[0].tokens:
            *parts, negative = self._together(x, level, [*conds, uncond])
            return parts, negative
        return [self._together(x, level, [cond])[0] for cond in conds], self._together(x, level, [uncond])[0]

    def _together(self, x: torch.Tensor, level: float, conds: list[Cond]) -> list[torch.Tensor]:
        """One pass of the UNet over the batch for each of the conditionings."""
        output = self.predict(x.repeat(len(conds), 1, 1, 1), level, stacked(conds, len(x)))
        return list(output.chunk(len(conds)))
