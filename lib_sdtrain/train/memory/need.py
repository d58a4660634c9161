"""The most memory a run takes, and for what: each part of it added up, the worst one told.

On a GPU what counts is the GPU's memory; on a CPU the process's own (anonymous) memory, without files that the system
keeps at hand.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib_sdtrain.data.draws import Draws
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.settings.run_outputs import WEBUI
from lib_sdtrain.train.encoding import UNCACHED
from lib_sdtrain.train.lora_layers import count_weights
from lib_sdtrain.train.memory.plays import Step
from lib_sdtrain.train.memory.table import DECODE, DRAW, ENCODE, other_peak, step_peak
from lib_sdtrain.train.optimizers.registry import MOMENT_BYTES
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.preview_requests import preview_requests
from lib_sdtrain.train.spare_memory import spare_memory
from lib_sdtrain.train.state_writer import SPARE
from lib_sdtrain.train.text_cache import keeps_text

FP32, FP16 = 4, 2
MOMENT_BYTES_OF_ADAMW = 8
PROGRAM = 380 * 2**20
"""A process that has loaded torch, diffusers and transformers and opened the pictures (PyTorch 2.13, Linux)."""
GAPS, GAPS_CHECKPOINTING = 0.17, 1.2
"""Of the activations: what lies in between that glibc cannot use for another size. Measured on toybox; with every large
block taken from the system and given back (MALLOC_MMAP_THRESHOLD_=131072, half as fast) what is played through is
measured to within a hundredth.
"""
TRAINING, ENCODING, PREVIEWS, CLASS_PICTURES = "training", "encoding pictures", "previews", "class pictures"

WORDS = {
    "weights": "weights", "optimizer": "optimizer", "average": "moving average",
    "working": "gradients and activations", "gaps": "gaps between them", "cached": "cached latents",
    "state_copy": "copy of a state being saved",
    "program": "the program",
}

Row = dict[str, Any]
"""`phase`, and bytes by what they are for."""


def need(plan: Plan, draws: Draws, sizes: Sequence[tuple[int, int]]) -> Row:
    """The run's most hungry part: `phase`, and the bytes of `weights`, `optimizer`, `average` (EMA), `working`
    (gradients, and what is computed), `gaps`, `cached` latents, `state_copy`, `program`; their sum is `total`.

    `sizes` are those of the pictures in training, in pixels.
    """
    area = max(width * height for width, height in sizes) // plan.family.vae.downscale**2
    rows = [_training(plan, draws, area), *_before(plan, area), *_previews(plan)]
    if plan.device == "cpu":
        rows = [_in_main_memory(plan, row, draws) for row in rows]
    return max(({**row, "total": sum(value for value in row.values() if isinstance(value, int))} for row in rows),
               key=lambda row: row["total"])  # fmt: skip


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


def moment_bytes(plan: Plan) -> int:
    """What the optimizer keeps of each weight."""
    return MOMENT_BYTES.get(plan.settings.train.optimizer, MOMENT_BYTES_OF_ADAMW)


def state_bytes(plan: Plan) -> int:
    """What a saved state takes: trained weights, the optimizer's moments, the average."""
    average = 0 if plan.settings.ema.decay is None else FP32
    return trained_weights(plan) * (FP32 + moment_bytes(plan) + average)


def _training(plan: Plan, draws: Draws, area: int) -> Row:
    settings = plan.settings
    with_class = any(material.concept.class_prompt for material in plan.materials)
    step = Step(
        settings.method, settings.train.gradient_checkpointing, settings.train.mixed_precision != "no",
        settings.train.step_in_backward and settings.method.kind == FULL,
    )
    batch = settings.train.batch_size * (2 if with_class else 1)
    return {
        "phase": TRAINING, "weights": _weights(plan, _at_hand(plan, draws)),
        "optimizer": trained_weights(plan) * moment_bytes(plan), "average": _average(plan),
        "working": step_peak(plan.family, step, batch, area),
    }


def _before(plan: Plan, area: int) -> list[Row]:
    every = set(plan.checkpoint.parameter_counts())
    rows = [{"phase": ENCODING, "weights": _weights(plan, every if plan.device == "cpu" else {VAE}),
             "average": _average(plan), "working": other_peak(plan.family, ENCODE, area)}]  # fmt: skip
    if any(plan.missing_class) and plan.settings.data.class_drawn_by != WEBUI:
        pixels = plan.target[0] * plan.target[1] // plan.family.vae.downscale**2
        whole = FP32 * sum(plan.checkpoint.parameter_counts().values())
        rows.append({"phase": CLASS_PICTURES, "weights": whole, "working": _drawing(plan, pixels)})
    return rows


def _previews(plan: Plan) -> list[Row]:
    if plan.settings.preview.drawn_by == WEBUI:
        return []
    requests = preview_requests(plan.settings, plan.target)
    if not requests:
        return []
    pixels = max(round(request.width * request.height * (request.hr_scale**2 if request.enable_hr else 1))
                 for request in requests) // plan.family.vae.downscale**2  # fmt: skip
    return [{
        "phase": PREVIEWS, "weights": _weights(plan, set(plan.checkpoint.parameter_counts())),
        "optimizer": trained_weights(plan) * moment_bytes(plan), "average": _average(plan),
        "working": _drawing(plan, pixels),
    }]  # fmt: skip


def _drawing(plan: Plan, pixels: int) -> int:
    return max(other_peak(plan.family, what, pixels) for what in (DRAW, DECODE))


def _in_main_memory(plan: Plan, row: Row, draws: Draws) -> Row:
    """What comes on top where training is in main memory."""
    row = {**row, "program": PROGRAM, "cached": _cached(plan, draws)}
    if row["phase"] == TRAINING:
        gradients = 0 if plan.settings.train.step_in_backward else trained_weights(plan) * FP32
        share = GAPS_CHECKPOINTING if plan.settings.train.gradient_checkpointing else GAPS
        row["gaps"] = round(max(0, row["working"] - gradients) * share)
    if row["phase"] not in (TRAINING, PREVIEWS):
        return row
    copy = state_bytes(plan) if 0 < plan.in_steps(plan.settings.save.state_every) < plan.steps else 0
    taken = sum(value for value in row.values() if isinstance(value, int))
    return {**row, "state_copy": copy} if spare_memory() >= taken + copy * SPARE else row


def _cached(plan: Plan, draws: Draws) -> int:
    """Latents that are kept in memory: mean and standard deviation in 32 bits."""
    if plan.settings.data.cache_latents != "memory":
        return 0
    scale, channels = plan.family.vae.downscale**2, plan.family.vae.z_channels
    return sum(2 * channels * FP32 * (draw.target[0] * draw.target[1] // scale) for draw in draws.all_forms())


def _average(plan: Plan) -> int:
    ema = plan.settings.ema
    elsewhere = ema.on_cpu and plan.device != "cpu"
    return 0 if ema.decay is None or elsewhere else trained_weights(plan) * FP32


def _weights(plan: Plan, parts: set[str]) -> int:
    """Bytes of these parts of the model, and of what is trained beside it; the trained parts are among them."""
    counts, whole = plan.checkpoint.parameter_counts(), plan.settings.method.kind == FULL
    bytes_of = {UNET: FP32 if whole or plan.settings.train.mixed_precision == "no" else FP16}  # see frozen.py
    beside = 0 if whole else FP32 * trained_weights(plan)
    return beside + sum(counts[part] * bytes_of.get(part, FP32) for part in parts & set(counts))


def _at_hand(plan: Plan, draws: Draws) -> set[str]:
    """The parts that are on the device while it trains: what is cached has left it."""
    counts, settings = set(plan.checkpoint.parameter_counts()), plan.settings
    if plan.device == "cpu":
        return counts
    away = set()
    kept = settings.data.cache_latents != UNCACHED and not settings.data.refresh_crops
    if kept and plan.family.variant == "base":
        away.add(VAE)
    if keeps_text(settings) and settings.method.kind != EMBEDDING and draws.all_words() is not None:
        away |= {part for part in TEXT_ENCODERS if not settings.method.trains(part)}
    return counts - away
