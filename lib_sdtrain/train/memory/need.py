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
from lib_sdtrain.model.keys import VAE, part_rows
from lib_sdtrain.sample.hires import sizes
from lib_sdtrain.settings.run_method import EMBEDDING, FULL
from lib_sdtrain.settings.run_outputs import WEBUI
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.train.memory.parts import (
    FP32,
    average_bytes,
    cached_bytes,
    cached_words_bytes,
    counts_of,
    drawing_bytes,
    draws_class,
    encodes_on_the_way,
    largest_area,
    parts_at_hand,
    pictures_together,
    prepared_bytes,
    prepared_encoder_bytes,
    shown_bytes,
    state_bytes,
    target_area,
    trained_weights,
    weight_bytes,
)
from lib_sdtrain.train.memory.plays import Step
from lib_sdtrain.train.memory.table import ENCODE, other_peak, step_peak
from lib_sdtrain.train.optimizers.elsewhere import TOGETHER, lie_elsewhere
from lib_sdtrain.train.optimizers.registry import moment_bytes
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.preview_requests import preview_requests
from lib_sdtrain.train.spare_memory import spare_memory
from lib_sdtrain.train.state_writer import SPARE

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
    weights = weight_bytes(plan, parts_at_hand(plan, draws))
    kept = _kept(plan, table)
    rows = [_training(plan, weights, kept, table), *_before(plan, table), *_in_between(plan, weights, kept)]
    if plan.device != "cuda":
        rows = [_in_main_memory(plan, row, table) for row in rows]
    row = max(rows, key=_total)
    return {**row, "total": _total(row)}


def fits_between_steps(plan: Plan, draws: Draws, table: Sequence[Mapping[str, Any]]) -> bool:
    """Whether pictures can be encoded between two steps without taking more than the run's most hungry part does."""
    kept, area = _kept(plan, table), largest_area(plan, table)
    row = {
        **kept, "phase": ENCODING, "weights": weight_bytes(plan, parts_at_hand(plan, draws) | {VAE}),
        "prepared": kept["prepared"] + prepared_encoder_bytes(plan, area),
        "working": other_peak(plan.family, ENCODE, area), "cached": cached_words_bytes(plan),
    }
    row = row if plan.device == "cuda" else _in_main_memory(plan, row, table)
    return _total(row) <= need(plan, draws, table)["total"]


def memory_text(row: Mapping[str, Any]) -> str:
    """`training: 3.4 GB weights, 6.9 GB optimizer, ...`, the largest first; what is under a hundredth is left out."""
    parts = {name: value for name, value in row.items() if name in WORDS and value >= row["total"] / 100}
    words = WORDS | ({} if row["phase"] == TRAINING else {"working": "activations"})
    told = (f"{value / 2**30:.1f} GB {words[name]}" for name, value in sorted(parts.items(), key=lambda one: -one[1]))
    return f"{row['phase']}: {', '.join(told)}"


def _total(row: Row) -> int:
    return sum(value for value in row.values() if isinstance(value, int))


def _kept(plan: Plan, table: Sequence[Mapping[str, Any]]) -> Row:
    """What is on the device from the first step on, beside the weights."""
    moments = trained_weights(plan) * moment_bytes(plan.settings.train.optimizer)
    if lie_elsewhere(plan.settings.train, plan.device):  # a few at a time, those of an optimizer's step
        moments = min(moments, TOGETHER // FP32 * moment_bytes(plan.settings.train.optimizer))
    return {"optimizer": moments, "average": average_bytes(plan), "prepared": prepared_bytes(plan, table)}


def _training(plan: Plan, weights: int, kept: Row, table: Sequence[Mapping[str, Any]]) -> Row:
    settings, area, batch = plan.settings, largest_area(plan, table), pictures_together(plan)
    step = Step(
        settings.method, settings.train.gradient_checkpointing, settings.train.mixed_precision != "no",
        settings.train.step_in_backward and settings.method.kind == FULL,
    )
    working = step_peak(plan.family, step, batch, area) + _longer_prompts(plan, step, batch, area)
    if encodes_on_the_way(plan):
        encoding = other_peak(plan.family, ENCODE, area)
        working = working + encoding if settings.data.refresh_crops else max(working, encoding)
    if step.in_backward and settings.train.max_grad_norm:  # activations are kept until the second pass is over
        working += _largest_gradient(plan)
    cached = 0 if plan.device != "cuda" else cached_words_bytes(plan)
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
    counts, area = counts_of(plan), largest_area(plan, table)
    rows = [{"phase": ENCODING, "weights": weight_bytes(plan, {VAE} if plan.device == "cuda" else set(counts)),
             "average": average_bytes(plan), "prepared": prepared_encoder_bytes(plan, area),
             "working": other_peak(plan.family, ENCODE, area)}]  # fmt: skip
    if draws_class(plan):
        whole, working = FP32 * sum(counts.values()), drawing_bytes(plan, target_area(plan))
        rows.append({"phase": CLASS_PICTURES, "weights": whole, "working": working})
    narrow = plan.device == "cuda" and not any(plan.missing_class)  # it goes there in its final form
    weights = weight_bytes(plan, set(counts)) if narrow else FP32 * sum(counts.values())
    return [*rows, {"phase": LOADING, "weights": weights}]


def _in_between(plan: Plan, weights: int, kept: Row) -> list[Row]:
    """Saving, and previews of our own."""
    kept = {**kept, "shown": shown_bytes(plan)}
    rows = [{"phase": SAVING, "weights": weights, **kept}]
    if plan.settings.preview.drawn_by != WEBUI and (requests := preview_requests(plan.settings, plan.target)):
        working = max(drawing_bytes(plan, *_pixels(plan, request)) for request in requests)
        everything = weight_bytes(plan, set(counts_of(plan)))
        rows.append({"phase": PREVIEWS, "weights": everything, **kept, "working": working})
    return rows


def _pixels(plan: Plan, request: SampleRequest) -> tuple[int, int]:
    """Latent pixels of a request's larger pass, and how many pictures are drawn together."""
    found = sizes(request)
    width, height = found.upscale_width or found.width, found.upscale_height or found.height
    return width * height // plan.family.vae.downscale**2, request.batch_size


def _in_main_memory(plan: Plan, row: Row, table: Sequence[Mapping[str, Any]]) -> Row:
    """What comes on top where training is in main memory."""
    row = {**row, "program": PROGRAM, "cached": cached_bytes(plan, table) + cached_words_bytes(plan)}
    if row["phase"] == TRAINING:
        trained, inside = trained_weights(plan) * FP32, plan.settings.train.step_in_backward
        share = GAPS_CHECKPOINTING if plan.settings.train.gradient_checkpointing else GAPS
        row["gaps"] = round(max(0, row["working"] - (0 if inside else trained)) * share)
        halves = plan.settings.train.mixed_precision != "no" and plan.settings.method.kind == FULL
        row["gaps"] += round(trained * (GAPS_IN_BACKWARD * inside + GAPS_HALF * halves))
    if row["phase"] not in (TRAINING, PREVIEWS):
        return row
    copy = state_bytes(plan) if 0 < plan.in_steps(plan.settings.save.state_every) < plan.steps else 0
    return {**row, "state_copy": copy} if spare_memory() >= _total(row) + copy * SPARE else row
