"""The most memory a run takes, and for what: each part of it added up, the worst one told.

On a GPU what counts is the GPU's memory; on a CPU the process's own (anonymous) memory, without files that the system
keeps at hand.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lib_sdtrain.data.draws import Draws
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, part_rows
from lib_sdtrain.sample.hires import sizes
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.settings.run_outputs import USE, WEBUI
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.train.convolutions import prepares_encoder, prepares_tiles
from lib_sdtrain.train.encoding import UNCACHED
from lib_sdtrain.train.forms import average_beside, forms_of
from lib_sdtrain.train.frozen import narrows
from lib_sdtrain.train.lora_layers import count_weights
from lib_sdtrain.train.memory.plays import TOKENS, Step
from lib_sdtrain.train.memory.table import DECODE, DRAW, ENCODE, other_peak, step_peak, vae_weights
from lib_sdtrain.train.memory.tiles import encoder_bytes, kernel_bytes
from lib_sdtrain.train.optimizers.elsewhere import TOGETHER, lie_elsewhere
from lib_sdtrain.train.optimizers.registry import ADAMW, SCHEDULE_FREE, moment_bytes
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.preview_requests import preview_requests
from lib_sdtrain.train.spare_memory import spare_memory
from lib_sdtrain.train.state_writer import SPARE
from lib_sdtrain.train.text_cache import (
    KEPT,
    chunks_at_most,
    frozen_encoders,
    keeps_text,
    known_before,
    lets_go,
)  # fmt: skip

FP32, FP16 = 4, 2
PROGRAM = 380 * 2**20
"""A process that has loaded torch, diffusers and transformers and opened the pictures (PyTorch 2.13, Linux)."""
GAPS, GAPS_CHECKPOINTING = 0.13, 1.8
"""Of the activations: what lies in between that glibc cannot use for another size. Measured on toybox; with every large
block taken from the system and given back (MALLOC_MMAP_THRESHOLD_=131072, half as fast) what is played through is
measured to within a hundredth.
"""
GAPS_IN_BACKWARD, GAPS_HALF = 0.2, 0.5
"""Of the trained weights: where each gradient is let go at once (SD1.5 in full, AdamW: 0.2 to 0.25, clipped 0.03 to
0.14), and where weights are narrowed for each product: what their copies leave is too small for gradients (0.5).
"""
TRAINING, ENCODING, PREVIEWS, CLASS_PICTURES = "training", "encoding pictures", "previews", "class pictures"
LOADING, SAVING = "loading the model", "saving"

WORDS = {
    "weights": "weights", "prepared": "weights prepared for convolutions", "optimizer": "optimizer",
    "average": "moving average",
    "working": "gradients and activations", "gaps": "gaps between them", "cached": "cached latents and captions",
    "shown": "what is shown in place of the weights", "state_copy": "copy of a state being saved",
    "program": "the program",
}

Row = dict[str, Any]
"""`phase`, and bytes by what they are for."""


def need(plan: Plan, draws: Draws, table: Sequence[Mapping[str, Any]]) -> Row:
    """The run's most hungry part: `phase`, and the bytes of `weights`, those `prepared` for convolutions, `optimizer`,
    `average` (EMA), `working` (gradients, and what is computed), `gaps`, `cached` latents and captions, `state_copy`,
    `program`; their sum is `total`. `table` has the sizes of the pictures in training (`bucket_table`).
    """
    weights = _weights(plan, _at_hand(plan, draws))
    kept = _kept(plan, table)
    rows = [_training(plan, weights, kept, table), *_before(plan, table), *_in_between(plan, weights, kept)]
    if plan.device != "cuda":
        rows = [_in_main_memory(plan, row, table) for row in rows]
    totals = [sum(value for value in row.values() if isinstance(value, int)) for row in rows]
    total, row = max(zip(totals, rows, strict=True), key=lambda pair: pair[0])
    return {**row, "total": total}


def held_from_the_start(plan: Plan) -> int:
    """Bytes of the heap that a run in main memory holds from its loading to its end: the UNet and the average; 0 where
    training is on another device.
    """
    return _weights(plan, {UNET}) + _average(plan) if plan.device == "cpu" else 0


def zeroed_from_the_start(plan: Plan) -> int:
    """Bytes of main memory that moments take which begin as zeros in a place of their own: those of AdamW."""
    train = plan.settings.train
    elsewhere = plan.device != "cpu" or train.optimizer != ADAMW or train.optimizer_args.get("amsgrad")
    return 0 if elsewhere else trained_weights(plan) * moment_bytes(train.optimizer)


def used_before_training(plan: Plan) -> int:
    """Bytes of what encodes pictures and captions, and draws those of the class: it is there before the moments are."""
    pixels = plan.target[0] * plan.target[1] // plan.family.vae.downscale**2
    working = _drawing(plan, pixels) if _draws_class(plan) else other_peak(plan.family, ENCODE, pixels)
    return _weights(plan, {VAE, *frozen_encoders(plan)}) + _prepared_encoder(plan) + working


def memory_text(row: Mapping[str, Any]) -> str:
    """`training: 3.4 GB weights, 6.9 GB optimizer, ...`, the largest first; what is under a hundredth is left out."""
    parts = {name: value for name, value in row.items() if name in WORDS and value >= row["total"] / 100}
    words = WORDS | ({} if row["phase"] == TRAINING else {"working": "activations"})
    told = (f"{value / 2**30:.1f} GB {words[name]}" for name, value in sorted(parts.items(), key=lambda one: -one[1]))
    return f"{row['phase']}: {', '.join(told)}"


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


def _kept(plan: Plan, table: Sequence[Mapping[str, Any]]) -> Row:
    """What is on the device from the first step on, beside the weights."""
    moments = trained_weights(plan) * moment_bytes(plan.settings.train.optimizer)
    if lie_elsewhere(plan.settings.train, plan.device):  # a few at a time, those of an optimizer's step
        moments = min(moments, TOGETHER // FP32 * moment_bytes(plan.settings.train.optimizer))
    return {"optimizer": moments, "average": _average(plan), "prepared": _prepared_weights(plan, table)}


def _prepared_weights(plan: Plan, table: Sequence[Mapping[str, Any]]) -> int:
    """Untrained weights of the UNet, prepared for convolutions in tiles, and the VAE's where it stays."""
    encoder = _prepared_encoder(plan) if _encodes_on_the_way(plan) else 0
    if not prepares_tiles(plan.device, plan.settings):
        return encoder
    scale = plan.family.vae.downscale
    sizes = [(height // scale, width // scale) for width, height in (row["size"] for row in table)]
    return encoder + kernel_bytes(plan.checkpoint, _together(plan), sizes)


def _prepared_encoder(plan: Plan) -> int:
    return encoder_bytes(plan.family.vae) if prepares_encoder(plan.device, plan.settings) else 0


def _together(plan: Plan) -> int:
    """Pictures of a batch, those of the class among them."""
    with_class = any(material.concept.class_prompt for material in plan.materials)
    return plan.settings.train.batch_size * (2 if with_class else 1)


def _training(plan: Plan, weights: int, kept: Row, table: Sequence[Mapping[str, Any]]) -> Row:
    settings, area, batch = plan.settings, _area(plan, table), _together(plan)
    step = Step(
        settings.method, settings.train.gradient_checkpointing, settings.train.mixed_precision != "no",
        settings.train.step_in_backward and settings.method.kind == FULL,
    )
    working = step_peak(plan.family, step, batch, area) + _longer_prompts(plan, step, batch, area)
    if _encodes_on_the_way(plan):
        encoding = other_peak(plan.family, ENCODE, area)
        working = working + encoding if settings.data.refresh_crops else max(working, encoding)
    if step.in_backward and settings.train.max_grad_norm:  # activations are kept until the second pass is over
        working += _largest_gradient(plan)
    cached = 0 if plan.device != "cuda" else _cached_words(plan)
    return {"phase": TRAINING, "weights": weights, **kept, "working": working, "cached": cached}


def _largest_gradient(plan: Plan) -> int:
    checkpoint, tables = plan.checkpoint, part_rows(plan.family)
    trained = (row.key for part, table in tables.items() if part != VAE and plan.settings.method.trains(part)
               for row in table if row.key in checkpoint.file_keys)  # fmt: skip
    return FP32 * max((math.prod(checkpoint.shape(key)) for key in trained), default=0)


def _longer_prompts(plan: Plan, step: Step, batch: int, area: int) -> int:
    """What further chunks of 75 tokens take where the first text encoder is trained: as much as the first one."""
    chunks = int(plan.settings.model.max_token_length) // 75
    if chunks == 1 or not step.method.train_text_encoder or step.method.kind == EMBEDDING:
        return 0
    alone = replace(step, in_backward=step.method.kind == FULL)  # no gradients between the two
    without = replace(alone, method=replace(step.method, train_text_encoder=False, train_text_encoder_2=False))
    one = step_peak(plan.family, alone, batch, area) - step_peak(plan.family, without, batch, area)
    return (chunks - 1) * max(0, one)


def _before(plan: Plan, table: Sequence[Mapping[str, Any]]) -> list[Row]:
    counts = _counts(plan)
    rows = [{"phase": ENCODING, "weights": _weights(plan, {VAE} if plan.device == "cuda" else set(counts)),
             "average": _average(plan), "prepared": _prepared_encoder(plan),
             "working": other_peak(plan.family, ENCODE, _area(plan, table))}]  # fmt: skip
    if _draws_class(plan):
        pixels = plan.target[0] * plan.target[1] // plan.family.vae.downscale**2
        whole = FP32 * sum(counts.values())
        rows.append({"phase": CLASS_PICTURES, "weights": whole, "working": _drawing(plan, pixels)})
    narrow = plan.device == "cuda" and not any(plan.missing_class)  # it goes there in its final form
    weights = _weights(plan, set(counts)) if narrow else FP32 * sum(counts.values())
    return [*rows, {"phase": LOADING, "weights": weights}]


def _draws_class(plan: Plan) -> bool:
    return any(plan.missing_class) and plan.settings.data.class_drawn_by != WEBUI


def _in_between(plan: Plan, weights: int, kept: Row) -> list[Row]:
    """Saving, and previews of our own."""
    kept = {**kept, "shown": _shown_beside(plan)}
    rows = [{"phase": SAVING, "weights": weights, **kept}]
    if plan.settings.preview.drawn_by != WEBUI and (requests := preview_requests(plan.settings, plan.target)):
        working = max(_drawing(plan, *_pixels(plan, request)) for request in requests)
        everything = _weights(plan, set(_counts(plan)))
        rows.append({"phase": PREVIEWS, "weights": everything, **kept, "working": working})
    return rows


def _pixels(plan: Plan, request: SampleRequest) -> tuple[int, int]:
    """Latent pixels of a request's larger pass, and how many pictures are drawn together."""
    found = sizes(request)
    width, height = found.upscale_width or found.width, found.upscale_height or found.height
    return width * height // plan.family.vae.downscale**2, request.batch_size


def _shown_beside(plan: Plan) -> int:
    """What is shown and saved in place of the weights where it does not lie on the device already."""
    settings = plan.settings
    used = any(form.settings.save.ema == USE for form in forms_of(settings))
    used = used or bool(plan.held_out and average_beside(settings))
    from_memory = settings.ema.decay is not None and used and settings.ema.on_cpu
    beside = (from_memory and plan.device == "cuda") or settings.train.optimizer == SCHEDULE_FREE
    return FP32 * trained_weights(plan) if beside else 0


def _drawing(plan: Plan, pixels: int, together: int = 1) -> int:
    return max(other_peak(plan.family, DRAW, pixels, together), other_peak(plan.family, DECODE, pixels))


def _in_main_memory(plan: Plan, row: Row, table: Sequence[Mapping[str, Any]]) -> Row:
    """What comes on top where training is in main memory."""
    row = {**row, "program": PROGRAM, "cached": _cached(plan, table) + _cached_words(plan)}
    if row["phase"] == TRAINING:
        trained, inside = trained_weights(plan) * FP32, plan.settings.train.step_in_backward
        share = GAPS_CHECKPOINTING if plan.settings.train.gradient_checkpointing else GAPS
        row["gaps"] = round(max(0, row["working"] - (0 if inside else trained)) * share)
        halves = plan.settings.train.mixed_precision != "no" and plan.settings.method.kind == FULL
        row["gaps"] += round(trained * (GAPS_IN_BACKWARD * inside + GAPS_HALF * halves))
    if row["phase"] not in (TRAINING, PREVIEWS):
        return row
    copy = state_bytes(plan) if 0 < plan.in_steps(plan.settings.save.state_every) < plan.steps else 0
    taken = sum(value for value in row.values() if isinstance(value, int))
    return {**row, "state_copy": copy} if spare_memory() >= taken + copy * SPARE else row


def _area(plan: Plan, table: Sequence[Mapping[str, Any]]) -> int:
    """Latent pixels of the largest size."""
    return max(math.prod(row["size"]) for row in table) // plan.family.vae.downscale**2


def _cached(plan: Plan, table: Sequence[Mapping[str, Any]]) -> int:
    """Latents that are kept in memory: mean and standard deviation in 32 bits, of every picture in every form."""
    data = plan.settings.data
    if data.cache_latents != "memory":
        return 0
    forms = (1 if data.flip_p in (0.0, 1.0) else 2) * (data.cache_crops if data.random_crop and data.cache_crops else 1)
    pixels = sum(row["images"] * math.prod(row["size"]) for row in table)
    others = (m for m in plan.materials if m.concept.class_from != OWN_PICTURES)  # which are kept once
    pixels += sum(len(material.class_pictures) for material in others) * math.prod(plan.target)
    return forms * pixels // plan.family.vae.downscale**2 * 2 * plan.family.vae.z_channels * FP32


def _cached_words(plan: Plan) -> int:
    """What frozen text encoders said, kept where the UNet is."""
    widths = sum(text.width for text in frozen_encoders(plan).values())
    return FP32 * TOKENS * widths * min(chunks_at_most(plan), KEPT) if keeps_text(plan.settings) else 0


def _encodes_on_the_way(plan: Plan) -> bool:
    data = plan.settings.data
    return data.cache_latents == UNCACHED or bool(data.refresh_crops) or plan.family.variant != "base"


def _average(plan: Plan) -> int:
    ema = plan.settings.ema
    elsewhere = ema.on_cpu and plan.device == "cuda"
    return 0 if ema.decay is None or elsewhere else trained_weights(plan) * FP32


def _counts(plan: Plan) -> dict[str, int]:
    """Weights of each part; those of a VAE of its own file are as many as the family's."""
    counts = plan.checkpoint.parameter_counts()
    if plan.settings.model.vae and not counts[VAE]:
        counts[VAE] = vae_weights(plan.family)
    return counts


def _weights(plan: Plan, parts: set[str]) -> int:
    """Bytes of these parts of the model, and of what is trained beside it; the trained parts are among them."""
    counts, beside = _counts(plan), 0 if plan.settings.method.kind == FULL else FP32 * trained_weights(plan)
    bytes_of = {UNET: FP16 if narrows(plan.settings) else FP32}
    return beside + sum(counts[part] * bytes_of.get(part, FP32) for part in parts & set(counts))


def _at_hand(plan: Plan, draws: Draws) -> set[str]:
    """The parts that are on the device while it trains: what is cached has left it."""
    vae = set() if _encodes_on_the_way(plan) else {VAE}
    texts = set(frozen_encoders(plan)) if known_before(plan, draws, plan.samples_a_step * plan.steps) else set()
    if plan.device != "cuda":  # where they are away from is where they are, unless they are let go
        vae = set() if plan.settings.preview.prompts else vae
        texts = texts if lets_go(plan) else set()
    return set(_counts(plan)) - vae - texts
