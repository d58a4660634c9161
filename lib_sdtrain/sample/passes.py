"""The first pass from noise, and the hires pass from its upscaled result."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from lib_sdtrain.events import CancelToken
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.family import V_PREDICTION
from lib_sdtrain.sample import hires
from lib_sdtrain.sample.composition import networks as marked
from lib_sdtrain.sample.conditioning import Conds, PromptReader
from lib_sdtrain.sample.denoiser import Guidance, GuidedModel
from lib_sdtrain.sample.editing import Steps
from lib_sdtrain.sample.embeddings import Library
from lib_sdtrain.sample.infotext_write import second_sampler
from lib_sdtrain.sample.networks import Networks
from lib_sdtrain.sample.noise import ImageNoise, NoisePlan
from lib_sdtrain.sample.pictures import Pictures
from lib_sdtrain.sample.plan import Levels, extras, first_levels, second_levels
from lib_sdtrain.sample.run_sampler import Run, prediction
from lib_sdtrain.sample.samplers.registry import TIMESTEP, Sampler, find_sampler
from lib_sdtrain.sample.tables import alphas_cumprod_of
from lib_sdtrain.sample.text_encoding import EncodingCache, TextReader
from lib_sdtrain.sample.unet import unet_call
from lib_sdtrain.settings.sample import SampleRequest

_CFGPP_SCALE = 12.5
_CHANNELS = 4


@dataclass(frozen=True)
class Batch:
    """Seeds of the pictures that are sampled together."""

    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]


@dataclass
class Passes:
    """Everything both passes of a batch share."""

    model: LoadedModel
    request: SampleRequest
    networks: Networks
    pictures: Pictures
    library: Library
    token: CancelToken
    on_progress: Callable[[int, int], None] | None
    encodings: EncodingCache = field(default_factory=EncodingCache)
    happened: frozenset[str] = frozenset()
    used_embeddings: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.model.unet.parameters()).device

    @property
    def first(self) -> Sampler:
        """The sampler of the first pass."""
        return find_sampler(self.request.sampler_name)

    @property
    def second(self) -> Sampler:
        """The sampler of the hires pass."""
        return second_sampler(self.request)

    @property
    def embedding_hashes(self) -> str:
        """As the infotext lists them."""
        return ", ".join(self.used_embeddings)

    def alphas_cumprod(self) -> torch.Tensor:
        """The model's noise table."""
        return alphas_cumprod_of(self.model)


def run_passes(passes: Passes, batch: Batch) -> torch.Tensor:
    """Final latents (B, 4, h, w) of a batch."""
    request, to = passes.request, hires.sizes(passes.request)
    prompt, found = marked(request.prompt)
    passes.networks.apply(() if request.disable_extra_networks else found)
    steps = Steps(passes.first.evaluations(request.steps), old=request.options.use_old_scheduling)
    conds = _conds(passes, (prompt, request.negative_prompt), (to.width, to.height), steps, passes.used_embeddings)
    generator = torch.Generator().manual_seed(batch.seeds[-1])  # the WebUI's global one, as its noise leaves it
    latents = _first_pass(passes, batch, conds, to, generator)
    return _hires_pass(passes, batch, latents, to, generator) if request.enable_hr else latents


def _conds(
    passes: Passes, texts: tuple[str, str], size: tuple[int, int], steps: Steps, used: list[str] | None = None
) -> Conds:
    """What the UNet is told in a pass; `used` takes down the embeddings."""
    used = [] if used is None else used
    reader = TextReader(
        passes.model, passes.request, passes.library, size, passes.encodings, passes.networks.on, used
    )
    return PromptReader(reader, steps).conds(*texts, pad=passes.request.options.pad_cond_uncond)


def _noise(passes: Passes, batch: Batch, width: int, height: int) -> ImageNoise:
    request = passes.request
    plan = NoisePlan(
        batch.seeds, batch.subseeds, request.subseed_strength,
        (request.seed_resize_from_w, request.seed_resize_from_h), request.ensd, request.randn_source,
    )
    return ImageNoise((_CHANNELS, height // 8, width // 8), plan, passes.device)


def _first_pass(
    passes: Passes, batch: Batch, conds: Conds, to: hires.Sizes, generator: torch.Generator
) -> torch.Tensor:
    request, sampler = passes.request, passes.first
    noise = _noise(passes, batch, to.width, to.height)
    levels = first_levels(request, sampler, passes.alphas_cumprod(), sdxl=passes.model.family.is_sdxl)
    x = noise.next()
    concat = _hidden_picture(passes, torch.zeros(len(x), 3, to.height // 8 * 8, to.width // 8 * 8), generator)
    if sampler.kind != TIMESTEP:
        sigma = levels.visit[0].item()
        x = x * ((1.0 + sigma**2) ** 0.5 if request.options.sgm_noise_multiplier else sigma)
    run = Run(sampler, levels, noise, extras(request, sampler), request.options, generator)
    return _sample(passes, run, conds, x, concat)


def _hires_pass(
    passes: Passes, batch: Batch, latents: torch.Tensor, to: hires.Sizes, generator: torch.Generator
) -> torch.Tensor:
    request, sampler = passes.request, passes.second
    latents, shown = _upscaled(passes, latents, to, generator)
    concat = _hidden_picture(passes, shown, generator)
    concat = concat if concat is None else hires.crop_latents(concat, to)
    latents = hires.crop_latents(latents, to)
    noise = _noise(passes, batch, latents.shape[3] * 8, latents.shape[2] * 8)
    fresh = noise.next()
    generator.manual_seed(batch.seeds[-1])
    levels = second_levels(request, sampler, passes.alphas_cumprod(), sdxl=passes.model.family.is_sdxl)
    conds = _hires_conds(passes, to)
    if levels is None:  # nothing is redrawn, but extra noise is added all the same
        return latents + fresh * (0.0 if sampler.kind == TIMESTEP else request.options.img2img_extra_noise)
    x = _noised(latents, fresh, sampler, levels, request.options.img2img_extra_noise)
    run = Run(sampler, levels, noise, extras(request, sampler), request.options, generator)
    return _sample(passes, run, conds, x, concat)


def _hires_conds(passes: Passes, to: hires.Sizes) -> Conds:
    """What the UNet is told in the hires pass, whose networks are put on the model before that, or after it."""
    request, sampler = passes.request, passes.second
    prompt, found = marked(request.hr_prompt or request.prompt)
    wanted = () if request.disable_extra_networks else found
    if not request.options.hires_fix_use_firstpass_conds:
        passes.networks.apply(wanted)
    steps = Steps(
        passes.first.evaluations(request.steps), sampler.evaluations(request.hr_second_pass_steps or request.steps),
        request.options.use_old_scheduling,
    )
    size = (to.upscale_width, to.upscale_height)
    conds = _conds(passes, (prompt, request.hr_negative_prompt or request.negative_prompt), size, steps)
    passes.networks.apply(wanted)
    return conds


def _noised(
    latents: torch.Tensor, noise: torch.Tensor, sampler: Sampler, levels: Levels, extra: float
) -> torch.Tensor:
    """Latents raised to the level at which the second pass starts."""
    if sampler.kind == TIMESTEP:
        alpha = levels.table[levels.whole[levels.steps - 1]].float().item()
        x = latents * alpha**0.5 + noise * (1 - alpha) ** 0.5
        return x + noise * (extra * alpha**0.5)
    return latents + noise * levels.visit[0].item() + noise * extra


def _upscaled(
    passes: Passes, latents: torch.Tensor, to: hires.Sizes, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first pass's latents at the size of the second, and the picture that an inpainting model may see.

    Pictures are encoded again with noise from `generator`.
    """
    name = passes.request.hr_upscaler
    if name in hires.LATENT_MODES:
        larger = hires.upscale_latents(latents, name, to)
        shows = passes.model.family.variant == "inpainting" and passes.request.options.inpainting_mask_weight < 1
        blank = torch.zeros(len(larger), 3, larger.shape[2] * 8, larger.shape[3] * 8)
        return larger, passes.pictures.decode(larger) if shows else blank
    pixels = ((passes.pictures.decode(latents) + 1.0) / 2.0).clamp(0.0, 1.0)
    larger = [hires.upscale_picture(hires.to_picture(p), name, to.upscale_width, to.upscale_height) for p in pixels]
    pixels = torch.stack([hires.from_picture(image) for image in larger])
    return passes.pictures.encode(pixels * 2 - 1, generator), pixels


def _hidden_picture(passes: Passes, shown: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """What an inpainting model sees when there is nothing to keep: a full mask, and the picture hidden behind it.

    `shown` (B, 3, H, W) is let through as far as the conditional mask weight says; None for other models.
    """
    if passes.model.family.variant != "inpainting":
        return None
    hidden = passes.pictures.encode(shown * (1 - passes.request.options.inpainting_mask_weight), generator)
    return torch.cat([torch.ones_like(hidden[:, :1]), hidden], dim=1).to(passes.device)


def _guidance(passes: Passes, sampler: Sampler) -> Guidance:
    request, options = passes.request, passes.request.options
    scale = request.cfg_scale / (_CFGPP_SCALE if sampler.function == "ddim_cfgpp" else 1.0)
    return Guidance(
        scale, options.skip_early_cond,
        options.s_min_uncond if request.s_min_uncond is None else request.s_min_uncond, options.s_min_uncond_all,
        options.pad_cond_uncond, options.pad_cond_uncond_v0, options.batch_cond_uncond,
    )


def _sample(
    passes: Passes, run: Run, conds: Conds, x: torch.Tensor, concat: torch.Tensor | None
) -> torch.Tensor:
    total = run.sampler.evaluations(run.levels.steps)

    def after(done: int) -> None:
        passes.token.check()
        if passes.on_progress:
            passes.on_progress(done, max(done, total))

    velocity = passes.model.family.prediction_type == V_PREDICTION
    predict = prediction(unet_call(passes.model.unet, concat), run.sampler, run.levels, velocity)
    model = GuidedModel(predict, conds, _guidance(passes, run.sampler), total, after)
    latents = run(model, x)
    passes.happened |= frozenset(model.happened)
    return latents
