"""The dry run: what will happen if this run is started. Reads headers and pictures, touches no weights."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET
from lib_sdtrain.settings.fields import declared, get_path, item_class
from lib_sdtrain.settings.layers import Resolved
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.train.data_plan import (
    bucket_lines,
    bucket_table,
    concept_rows,
    draws_of,
    group_lines,
    token_line,
    token_report,
)  # fmt: skip
from lib_sdtrain.train.layout import child_specs, size_of
from lib_sdtrain.train.lora_layers import count_weights
from lib_sdtrain.train.optimizers.registry import MOMENT_BYTES
from lib_sdtrain.train.plan import Plan

SHOWN_PROMPTS = 20
NOTHING = "(nothing)"
"""What stands for the words of a caption that is dropped altogether."""
TRAINED_BYTES = 8  # fp32 weight and gradient; the optimizer's moments come on top
FROZEN_BYTES = 4
MOMENT_BYTES_OF_ADAMW = 8
LORA_BYTES = 2
ACTIVATION_BYTES = 1600  # a latent pixel and UNet channel, forward and backward, measured on SD1.5 in fp32


def forecast(plan: Plan) -> dict[str, Any]:
    """The document of `train --dry-run`."""
    draws = draws_of(plan)
    return outline(plan, draws) | {"prompts": sample_prompts(plan, draws)}


def outline(plan: Plan, draws: Draws) -> dict[str, Any]:
    """What a run comes to, without its words."""
    buckets = bucket_table(plan.materials, plan.settings.data)
    return {
        "images": plan.pictures,
        "steps": plan.steps,
        "concepts": [
            {
                **row,
                "class_images": material.concept.num_class_images if material.concept.class_prompt else 0,
                "class_images_to_make": missing,
            }
            for row, material, missing in zip(
                concept_rows(plan.materials), plan.materials, plan.missing_class, strict=True
            )
        ],
        "buckets": buckets,
        "tokens": token_report(plan, draws),
        "memory_bytes": memory_bytes(plan, max(math.prod(row["size"]) for row in buckets)),
        "disk_bytes": disk_bytes(plan),
    }


def forecast_stages(plans: Sequence[Plan]) -> dict[str, Any]:
    """The document of a run of one or more stages: the first one's, with the steps and disk of all, the most memory of
    any, and under `stages` what each comes to.
    """
    documents = [forecast(plan) for plan in plans]
    if len(plans) == 1:
        return documents[0]
    rows = [
        {"resolution": plan.settings.data.resolution, **{key: document[key] for key in ("steps", "images", "buckets")}}
        for plan, document in zip(plans, documents, strict=True)
    ]
    return {
        **documents[0], "steps": sum(document["steps"] for document in documents), "stages": rows,
        "memory_bytes": max(document["memory_bytes"] for document in documents),
        "disk_bytes": sum(document["disk_bytes"] for document in documents),
    }


def sample_prompts(plan: Plan, draws: Draws) -> list[str]:
    """The words of the first samples exactly as training will see them."""
    return [prompt.replace(ZEROED, NOTHING) for prompt in first_prompts(plan, draws)]


def first_prompts(plan: Plan, draws: Draws) -> Iterator[str]:
    """The words of the first samples."""
    for index in range(min(SHOWN_PROMPTS, plan.steps * plan.samples_a_step)):
        yield draws.at(index).prompt


def memory_bytes(plan: Plan, pixels: int) -> int:
    """An estimate of the peak: weights, gradients, optimiser, activations of the UNet at its largest size."""
    trained, trained_bytes = trained_weights(plan), TRAINED_BYTES + _moment_bytes(plan)
    frozen = sum(plan.checkpoint.parameter_counts().values())
    if plan.settings.method.kind == FULL:
        frozen -= trained
    half = plan.settings.train.mixed_precision != "no"
    with_class = any(material.concept.class_prompt for material in plan.materials)
    batch = plan.settings.train.batch_size * (2 if with_class else 1)
    activations = batch * (pixels // plan.family.vae.downscale**2) * plan.family.unet.model_channels * ACTIVATION_BYTES
    if half:
        activations //= 2
    if plan.settings.train.gradient_checkpointing:
        activations //= 3
    if plan.settings.ema.decay is not None:
        trained_bytes += FROZEN_BYTES
    return trained * trained_bytes + frozen * FROZEN_BYTES + activations


def _moment_bytes(plan: Plan) -> int:
    """What the optimizer keeps of each weight."""
    return MOMENT_BYTES.get(plan.settings.train.optimizer, MOMENT_BYTES_OF_ADAMW)


def trained_weights(plan: Plan) -> int:
    """How many weights are trained, those of an embedding left aside where they are few beside the others."""
    counts, method = plan.checkpoint.parameter_counts(), plan.settings.method
    if method.kind == EMBEDDING:
        return plan.settings.embedding.vectors * sum(text.width for text in plan.family.text)
    wanted = [part for part in (UNET, *TEXT_ENCODERS) if part in counts and method.trains(part)]
    if method.kind == LORA:
        return sum(count_weights(plan.checkpoint, part, method) for part in wanted)
    return sum(counts[part] for part in wanted)


def checkpoint_bytes(plan: Plan) -> int:
    """What all checkpoints of the run take."""
    every = plan.in_steps(plan.settings.save.every)
    if plan.settings.method.kind == EMBEDDING:
        size = trained_weights(plan) * FROZEN_BYTES
    elif plan.settings.method.kind == LORA:
        size = trained_weights(plan) * LORA_BYTES * (2 if plan.settings.save.dtype == "fp32" else 1)
    else:
        size = size_of(child_specs(plan.checkpoint, plan.settings, plan.family))
    return size * (1 + ((plan.steps - 1) // every if every else 0))


def run_bytes(plan: Plan) -> int:
    """What else the run writes: two states at the moment of saving, and class pictures."""
    pictures = sum(plan.missing_class) * math.prod(plan.target) * 2
    a_weight = FROZEN_BYTES + _moment_bytes(plan) + (0 if plan.settings.ema.decay is None else FROZEN_BYTES)
    return 2 * trained_weights(plan) * a_weight + pictures


def disk_bytes(plan: Plan) -> int:
    """An estimate of all that the run writes."""
    return checkpoint_bytes(plan) + run_bytes(plan)


def forecast_text(document: dict[str, Any], resolved: Resolved[RunSettings]) -> str:
    """The plan for people: what will happen, then every setting with where its value came from."""
    lines = [f"{document['images']} pictures, {document['steps']} steps"]
    for concept in document["concepts"]:
        made = concept["class_images_to_make"]
        kept = f", {concept['class_images']} class pictures ({made} to make)" if concept["class_images"] else ""
        lines.append(f"  {concept['name']}: {concept['images']} pictures, {concept['share']:.0%} of samples{kept}")
        lines += group_lines(concept)
    for number, stage in enumerate(document.get("stages", [{"buckets": document["buckets"]}]), 1):
        if "steps" in stage:
            lines.append(f"stage {number}: {stage['resolution']} pixels, {stage['steps']} steps")
        lines += bucket_lines(stage["buckets"])
    memory, disk = (document[key] / 2**30 for key in ("memory_bytes", "disk_bytes"))
    lines.append(f"about {memory:.1f} GB of memory, {disk:.1f} GB on disk")
    lines.append(token_line(document["tokens"]))
    lines += ["", "Prompts as training will see them:", *(f"  {prompt!r}" for prompt in document["prompts"])]
    lines += ["", "Settings and where they came from:", *origin_lines(resolved)]
    return "\n".join(lines)


def origin_lines(resolved: Resolved[RunSettings]) -> list[str]:
    """`  train.length = 800    (preset toybox-dreambooth)`, one line a setting."""
    lines = []
    for item in declared(RunSettings):
        value = get_path(resolved.settings, item.path)
        shown = f"{len(value)} given" if item_class(item) else "off" if value is None else value
        lines.append(f"  {item.path} = {shown}    ({resolved.origin(item.path)})")
    return lines
