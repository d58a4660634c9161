"""The infotext that AUTOMATIC1111 WebUI 1.10.1 writes for a request (processing.py:create_infotext and its callers)."""
from __future__ import annotations

import math
from typing import Any

from lib_sdtrain.sample.composition import composed, networks
from lib_sdtrain.sample.editing import Interval, Steps, edited
from lib_sdtrain.sample.infotext import Facts, join, ordered
from lib_sdtrain.sample.samplers.registry import TIMESTEP, Sampler, find_sampler
from lib_sdtrain.sample.schedule_names import find_schedule
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest

RUNTIME = ("NGMS", "NGMS all steps", "Pad conds", "Pad conds v0")
"""Labels that the WebUI writes only when the setting came into effect while sampling."""


def second_sampler(request: SampleRequest) -> Sampler:
    """The sampler of the hires pass."""
    return find_sampler(request.hr_sampler_name or request.sampler_name)


def schedule_label(sampler: Sampler, scheduler: str | None) -> str | None:
    """The schedule type in force, None where the sampler decides by itself."""
    if sampler.kind == TIMESTEP:
        return None
    found = find_schedule(scheduler)
    if found.name == "automatic":
        found = find_schedule(sampler.schedule)
    return None if found.name == "automatic" else found.label


def effective_eta(request: SampleRequest, sampler: Sampler) -> float:
    """The eta of a pass: the request's, else the option's for this kind of sampler."""
    if request.eta is not None:
        return request.eta
    return request.options.eta_ddim if sampler.kind == TIMESTEP else request.options.eta_ancestral


def _ensd(request: SampleRequest, sampler: Sampler) -> int | None:
    eta = request.eta if request.eta is not None else 1.0 if request.enable_hr else effective_eta(request, sampler)
    return request.ensd if request.ensd and sampler.uses_ensd and eta != 0 else None


def _base(request: SampleRequest, sampler: Sampler) -> dict[str, Any]:
    varied = request.subseed_strength != 0
    resized = request.seed_resize_from_w > 0 and request.seed_resize_from_h > 0
    tiling = request.options.tiling if request.tiling is None else request.tiling
    return {
        "Steps": request.steps,
        "Sampler": request.sampler_name,
        "Schedule type": schedule_label(sampler, request.scheduler) or request.scheduler,
        "CFG scale": request.cfg_scale,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Variation seed": request.subseed if varied else None,
        "Variation seed strength": request.subseed_strength if varied else None,
        "Seed resize from": f"{request.seed_resize_from_w}x{request.seed_resize_from_h}" if resized else None,
        "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
        "ENSD": _ensd(request, sampler),
        "RNG": request.randn_source if request.randn_source != "GPU" else None,
        "Tiling": "True" if tiling else None,
    }


def _hires(request: SampleRequest, sampler: Sampler) -> dict[str, Any]:
    if not request.enable_hr:
        return {}
    resized = bool(request.hr_resize_x or request.hr_resize_y)
    other = request.hr_sampler_name not in (None, request.sampler_name)
    first = schedule_label(sampler, request.scheduler)
    second = schedule_label(second_sampler(request), request.hr_scheduler or request.scheduler)
    return {
        "Denoising strength": request.denoising_strength,
        "Hires sampler": request.hr_sampler_name if other else None,
        "Hires prompt": _if_other(request.hr_prompt, request.prompt),
        "Hires negative prompt": _if_other(request.hr_negative_prompt, request.negative_prompt),
        "Hires schedule type": second if second != first else None,
        "Hires upscale": None if resized else request.hr_scale,
        "Hires resize": f"{request.hr_resize_x}x{request.hr_resize_y}" if resized else None,
        "Hires steps": request.hr_second_pass_steps or None,
        "Hires upscaler": request.hr_upscaler,
    }


def _if_other(text: str, first: str) -> str | None:
    return text if text not in ("", first) else None


def _edited(request: SampleRequest, old: bool) -> list[Interval]:
    """The texts of the first pass over its steps."""
    steps = Steps(find_sampler(request.sampler_name).evaluations(request.steps), old=old)
    parts = [part.text for part in composed(networks(request.prompt)[0])] + [request.negative_prompt]
    return [interval for part in parts for interval in edited(part, steps)]


def _prompt_options(request: SampleRequest) -> dict[str, Any]:
    options = request.options
    texts = _edited(request, options.use_old_scheduling)
    weighted = any(mark in interval.text for interval in texts for mark in "([")
    old = options.use_old_scheduling and texts != _edited(request, old=False)
    return {
        "Old prompt editing timelines": True if old else None,
        "Emphasis": request.emphasis if weighted and request.emphasis != "Original" else None,
        "Downcast alphas_cumprod": True if options.use_downcasted_alpha_bar else None,
        "Noise Schedule": options.sd_noise_schedule if options.sd_noise_schedule != "Default" else None,
    }


def _schedule_options(request: SampleRequest, samplers: list[Sampler]) -> dict[str, Any]:
    options = request.options
    labels = [schedule_label(samplers[0], request.scheduler)]
    if len(samplers) > 1:
        labels.append(schedule_label(samplers[1], request.hr_scheduler or request.scheduler))
    made = [find_schedule(label) for label in labels if label]
    rho = any(s.default_rho is not None and options.rho not in (0, s.default_rho) for s in made)
    beta = any(s.name == "beta" for s in made)
    sigmas = any(s.kind != TIMESTEP for s in samplers)
    discards = options.always_discard_next_to_last_sigma and any(not s.discard_penultimate for s in samplers)
    return {
        "Discard penultimate sigma": True if discards else None,
        "Schedule min sigma": options.sigma_min or None if made else None,
        "Schedule max sigma": options.sigma_max or None if made else None,
        "Schedule rho": options.rho if rho else None,
        "Beta schedule alpha": options.beta_dist_alpha if beta else None,
        "Beta schedule beta": options.beta_dist_beta if beta else None,
        "SGM noise multiplier": True if options.sgm_noise_multiplier and sigmas else None,
        "Extra noise": options.img2img_extra_noise or None if len(samplers) > 1 else None,
    }


_DEFAULTS = SampleOptions()


def _sampler_options(request: SampleRequest, samplers: list[Sampler]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for sampler in samplers:
        eta = effective_eta(request, sampler)
        label, default = ("Eta DDIM", 0.0) if sampler.kind == TIMESTEP else ("Eta", 1.0)
        if sampler.takes_eta and eta != default:
            found[label] = eta
        for name in sampler.extras:
            value = getattr(request.options, name)
            if value != getattr(_DEFAULTS, name) and not (name == "s_tmax" and math.isinf(value)):
                found[f"Sigma {name.removeprefix('s_')}"] = value
    return found


def _guidance_options(request: SampleRequest, happened: frozenset[str] | None) -> dict[str, Any]:
    options = request.options
    ngms = options.s_min_uncond if request.s_min_uncond is None else request.s_min_uncond
    found = {
        "Skip Early CFG": options.skip_early_cond or None,
        "NGMS": ngms or None,
        "NGMS all steps": True if options.s_min_uncond_all and ngms else None,
        "Pad conds": True if options.pad_cond_uncond else None,
        "Pad conds v0": True if options.pad_cond_uncond_v0 else None,
    }
    if happened is None:
        return found
    return {label: value for label, value in found.items() if label not in RUNTIME or label in happened}


def write_infotext(request: SampleRequest, facts: Facts, happened: frozenset[str] | None = None) -> str:
    """The infotext of one picture; `request.seed` and `request.subseed` are this picture's.

    `happened`: which of `RUNTIME` came into effect; None writes those that were asked for.
    """
    first = find_sampler(request.sampler_name)
    samplers = [first, second_sampler(request)] if request.enable_hr else [first]
    parameters = {
        **_base(request, first), **_hires(request, first), **_prompt_options(request),
        **_schedule_options(request, samplers), **_sampler_options(request, samplers),
        **_guidance_options(request, happened),
        "Conditional mask weight": request.options.inpainting_mask_weight if facts.inpainting else None,
    }
    return join(request.prompt, request.negative_prompt, ordered(parameters, facts))
