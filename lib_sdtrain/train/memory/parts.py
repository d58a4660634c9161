"""Bytes that single parts of a run take, and what decides whether they are there: `need` adds them up."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lib_sdtrain.data.draws import Draws, kept_crops
from lib_sdtrain.data.mirrored import FLIPS, ways_of_chance
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.settings.run_outputs import USE, WEBUI
from lib_sdtrain.train.convolutions import prepares_encoder, prepares_tiles
from lib_sdtrain.train.encoding import UNCACHED
from lib_sdtrain.train.forms import average_beside, forms_of
from lib_sdtrain.train.frozen import narrows
from lib_sdtrain.train.lora_layers import count_weights
from lib_sdtrain.train.memory.plays import TOKENS
from lib_sdtrain.train.memory.table import DECODE, DRAW, other_peak, vae_weights
from lib_sdtrain.train.memory.tiles import encoder_bytes, kernel_bytes
from lib_sdtrain.train.optimizers.registry import SCHEDULE_FREE, moment_bytes
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.text_cache import KEPT, chunks_at_most, frozen_encoders, keeps_text, known_before, lets_go

FP32, FP16 = 4, 2


def trained_weights(plan: Plan) -> int:
    """How many weights are trained, those of an embedding left aside where they are few beside the others."""
    counts, method = plan.checkpoint.parameter_counts(), plan.settings.method
    if method.kind == EMBEDDING:
        return plan.settings.embedding.vectors * sum(text.width for text in plan.family.text)
    wanted = [part for part in (UNET, *TEXT_ENCODERS) if part in counts and method.trains(part)]
    if method.kind == LORA:
        return sum(count_weights(plan.checkpoint, part, method) for part in wanted)
    return sum(counts[part] for part in wanted)


def state_bytes(plan: Plan) -> int:
    """What a saved state takes: trained weights, the optimizer's moments, the average."""
    average = 0 if plan.settings.ema.decay is None else FP32
    return trained_weights(plan) * (FP32 + moment_bytes(plan.settings.train.optimizer) + average)


def counts_of(plan: Plan) -> dict[str, int]:
    """Weights of each part; those of a VAE of its own file are as many as the family's."""
    counts = plan.checkpoint.parameter_counts()
    if plan.settings.model.vae and not counts[VAE]:
        counts[VAE] = vae_weights(plan.family)
    return counts


def weight_bytes(plan: Plan, parts: set[str]) -> int:
    """Bytes of these parts of the model, and of what is trained beside it; the trained parts are among them."""
    counts, beside = counts_of(plan), 0 if plan.settings.method.kind == FULL else FP32 * trained_weights(plan)
    bytes_of = {UNET: FP16 if narrows(plan.settings) else FP32}
    return beside + sum(counts[part] * bytes_of.get(part, FP32) for part in parts & set(counts))


def average_bytes(plan: Plan) -> int:
    """The moving average where the weights are; 0 where it is kept elsewhere."""
    ema = plan.settings.ema
    elsewhere = ema.on_cpu and plan.device == "cuda"
    return 0 if ema.decay is None or elsewhere else trained_weights(plan) * FP32


def cached_bytes(plan: Plan, table: Sequence[Mapping[str, Any]]) -> int:
    """Latents that are kept in memory: mean and standard deviation in 32 bits, of every picture in every form."""
    data = plan.settings.data
    if data.cache_latents != "memory":
        return 0
    crops = kept_crops(data) or 1
    pixels = sum(row["encoded"] * math.prod(row["size"]) for row in table)
    others = (m for m in plan.materials if m.concept.class_from != OWN_PICTURES)  # which are kept once
    of_class = sum(len(material.class_pictures) for material in others) * len(FLIPS[ways_of_chance(data.flip_p)])
    pixels += of_class * math.prod(plan.target)
    return crops * pixels // plan.family.vae.downscale**2 * 2 * plan.family.vae.z_channels * FP32


def cached_words_bytes(plan: Plan) -> int:
    """What frozen text encoders said, kept where the UNet is."""
    widths = sum(text.width for text in frozen_encoders(plan).values())
    return FP32 * TOKENS * widths * min(chunks_at_most(plan), KEPT) if keeps_text(plan.settings) else 0


def target_area(plan: Plan) -> int:
    """Latent pixels of the size that is asked for, in which class pictures are drawn."""
    return plan.target[0] * plan.target[1] // plan.family.vae.downscale**2


def largest_area(plan: Plan, table: Sequence[Mapping[str, Any]]) -> int:
    """Latent pixels of the largest size in training."""
    return max(math.prod(row["size"]) for row in table) // plan.family.vae.downscale**2


def prepared_bytes(plan: Plan, table: Sequence[Mapping[str, Any]]) -> int:
    """Untrained weights of the UNet, prepared for convolutions in tiles, and the VAE's where it stays."""
    encoder = prepared_encoder_bytes(plan, largest_area(plan, table)) if encodes_on_the_way(plan) else 0
    if not prepares_tiles(plan.device, plan.settings):
        return encoder
    scale = plan.family.vae.downscale
    sizes = [(height // scale, width // scale) for width, height in (row["size"] for row in table)]
    return encoder + kernel_bytes(plan.checkpoint, pictures_together(plan), sizes)


def prepared_encoder_bytes(plan: Plan, area: int) -> int:
    """Weights of the VAE's encoder, prepared for convolutions in tiles where latents have so many pixels."""
    return encoder_bytes(plan.family.vae, area) if prepares_encoder(plan.device, plan.settings) else 0


def pictures_together(plan: Plan) -> int:
    """Pictures of a batch, those of the class among them."""
    with_class = any(material.concept.class_prompt for material in plan.materials)
    return plan.settings.train.batch_size * (2 if with_class else 1)


def drawing_bytes(plan: Plan, pixels: int, together: int = 1) -> int:
    """What is computed while pictures of so many latent pixels are drawn, `together` at once, and decoded singly."""
    return max(other_peak(plan.family, DRAW, pixels, together), other_peak(plan.family, DECODE, pixels))


def draws_class(plan: Plan) -> bool:
    """Whether class pictures are drawn in this process before training."""
    return any(plan.missing_class) and plan.settings.data.class_drawn_by != WEBUI


def encodes_on_the_way(plan: Plan) -> bool:
    """Whether pictures are encoded during training too."""
    data = plan.settings.data
    return data.cache_latents == UNCACHED or bool(data.refresh_crops) or plan.family.variant != "base"


def shown_bytes(plan: Plan) -> int:
    """What is shown and saved in place of the weights where it does not lie on the device already."""
    settings = plan.settings
    used = any(form.settings.save.ema == USE for form in forms_of(settings))
    used = used or bool(plan.held_out and average_beside(settings))
    from_memory = settings.ema.decay is not None and used and settings.ema.on_cpu
    beside = (from_memory and plan.device == "cuda") or settings.train.optimizer == SCHEDULE_FREE
    return FP32 * trained_weights(plan) if beside else 0


def parts_at_hand(plan: Plan, draws: Draws) -> set[str]:
    """The parts that are on the device while it trains: what is cached has left it."""
    vae = set() if encodes_on_the_way(plan) else {VAE}
    texts = set(frozen_encoders(plan)) if known_before(plan, draws, plan.samples_a_step * plan.steps) else set()
    if plan.device != "cuda":  # where they are away from is where they are, unless they are let go
        vae = set() if plan.settings.preview.prompts else vae
        texts = texts if lets_go(plan) else set()
    return set(counts_of(plan)) - vae - texts
