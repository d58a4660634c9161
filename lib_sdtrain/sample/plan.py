"""Which levels a pass visits and where it starts: the arithmetic between a request and a sampler."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.schedule import rescale_zero_terminal_snr
from lib_sdtrain.sample.infotext_write import effective_eta
from lib_sdtrain.sample.levels import ConsistencyLevels, NoiseLevels
from lib_sdtrain.sample.samplers.registry import CONSISTENCY, TIMESTEP, Sampler
from lib_sdtrain.sample.samplers.steps import Churn
from lib_sdtrain.sample.schedule_names import find_schedule
from lib_sdtrain.sample.schedules import FUNCTIONS, Range
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest

_LAST_ALPHA = 4.8973451890853435e-08
_TRAINED = 1000


def noise_table(alphas_cumprod: torch.Tensor, options: SampleOptions) -> torch.Tensor:
    """The model's table as the options change it: rounded to half precision, or with a last step of pure noise."""
    table = alphas_cumprod.half() if options.use_downcasted_alpha_bar else alphas_cumprod
    if options.sd_noise_schedule == "Zero Terminal SNR":
        table = rescale_zero_terminal_snr(table, last=_LAST_ALPHA)
    return table


def noise_levels(sampler: Sampler, table: torch.Tensor, options: SampleOptions) -> NoiseLevels:
    """The levels that the sampler's schedules refer to."""
    if sampler.kind == CONSISTENCY:
        return ConsistencyLevels(table)
    return NoiseLevels(table, quantize=options.enable_quantization)


def _range(sampler_levels: NoiseLevels, options: SampleOptions, default_rho: float | None, sdxl: bool) -> Range:
    low, high = sampler_levels.sigma_min, sampler_levels.sigma_max
    if options.use_old_karras_scheduler_sigmas:
        low, high = 0.1, 10.0
    rho = options.rho if default_rho is not None and options.rho != 0 else default_rho
    return Range(
        sampler_levels, options.sigma_min or low, options.sigma_max or high, rho,
        (options.beta_dist_alpha, options.beta_dist_beta), sdxl,
    )


def sigmas(
    sampler: Sampler, scheduler: str | None, steps: int, levels: NoiseLevels, options: SampleOptions, *,
    sdxl: bool = False,
) -> torch.Tensor:
    """The sigmas of a pass, from high to low. Source: WebUI 1.10.1, sd_samplers_kdiffusion.py:get_sigmas."""
    discard = sampler.discard_penultimate or options.always_discard_next_to_last_sigma
    steps += 1 if discard else 0
    schedule = find_schedule(scheduler)
    if schedule.name == "automatic":
        schedule = find_schedule(sampler.schedule)
    if schedule.name == "automatic":
        found = levels.uniform(steps)
    else:
        found = FUNCTIONS[schedule.name](steps, _range(levels, options, schedule.default_rho, sdxl))
    return torch.cat([found[:-2], found[-1:]]) if discard else found


def timesteps(sampler: Sampler, steps: int, options: SampleOptions) -> torch.Tensor:
    """Rising timesteps 1, 1 + s, 1 + 2s ... with s = 1000 // steps; there may be one more than `steps`."""
    steps += 1 if options.always_discard_next_to_last_sigma and not sampler.discard_penultimate else 0
    if not 1 <= steps <= _TRAINED:
        raise UserError(f"{sampler.name} cannot take {steps} steps", where="steps", fix="use 1 to 1000")
    return torch.clip(torch.arange(0, _TRAINED, _TRAINED // steps) + 1, 0, _TRAINED - 1)


@dataclass(frozen=True)
class Extras:
    """Noise settings of a pass."""

    eta: float
    churn: Churn

    @property
    def s_noise(self) -> float:
        """Factor of the noise that is added."""
        return self.churn.s_noise


def extras(request: SampleRequest, sampler: Sampler) -> Extras:
    """Noise settings in force: an option wins over the request where it is not at its default (as in the WebUI)."""
    defaults, values = Churn(), {}
    for name in sampler.extras:
        option, own, default = getattr(request.options, name), getattr(request, name), getattr(defaults, name)
        if name == "s_tmax":
            option, own = option or math.inf, math.inf if own == 0 else own
        values[name] = option if option != default or own is None else own
    return Extras(effective_eta(request, sampler), Churn(**values))


@dataclass(frozen=True)
class Levels:
    """The table of the model, and what the sampler visits: `visit` are sigmas or timesteps; `span` for solvers."""

    table: torch.Tensor
    levels: NoiseLevels
    visit: torch.Tensor
    whole: torch.Tensor
    """All sigmas of the schedule, of which a second pass visits the end."""
    span: tuple[float, float] | None = None
    unipc_start: float = 1.0
    steps: int = 0


def first_levels(
    request: SampleRequest, sampler: Sampler, alphas_cumprod: torch.Tensor, *, sdxl: bool
) -> Levels:
    """Levels of a pass that starts from noise."""
    table = noise_table(alphas_cumprod, request.options)
    levels = noise_levels(sampler, table, request.options)
    if sampler.kind == TIMESTEP:
        visit = timesteps(sampler, request.steps, request.options)
        return Levels(table, levels, visit, visit, steps=request.steps)
    visit = sigmas(sampler, request.scheduler, request.steps, levels, request.options, sdxl=sdxl)
    return Levels(table, levels, visit, visit, (levels.sigma_min, levels.sigma_max), steps=request.steps)


def second_levels(
    request: SampleRequest, sampler: Sampler, alphas_cumprod: torch.Tensor, *, sdxl: bool
) -> Levels | None:
    """Levels of a hires pass: the last `steps` of a schedule that is longer; None when there is nothing to do."""
    from lib_sdtrain.sample.hires import second_pass_steps

    table = noise_table(alphas_cumprod, request.options)
    levels = noise_levels(sampler, table, request.options)
    length, index = second_pass_steps(request.hr_second_pass_steps or request.steps, request.denoising_strength)
    if length == 0:
        return None
    if sampler.kind == TIMESTEP:
        whole = timesteps(sampler, length, request.options)
        visit = whole[:index]
        start = visit[-1] / _TRAINED + 1 / _TRAINED if len(visit) else torch.tensor(1.0)
        return Levels(table, levels, visit, whole, unipc_start=start.item(), steps=index + 1)
    scheduler = request.hr_scheduler or request.scheduler
    whole = sigmas(sampler, scheduler, length, levels, request.options, sdxl=sdxl)
    visit = whole[length - index - 1 :]
    span = (visit[-2].item(), visit[0].item()) if len(visit) > 1 else None
    return Levels(table, levels, visit, whole, span, steps=index + 1)
