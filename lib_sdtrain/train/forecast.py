"""The dry run: what will happen if this run is started. Reads headers and pictures, touches no weights."""
from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.events import Event, Phase
from lib_sdtrain.settings.fields import declared, get_path, item_class
from lib_sdtrain.settings.layers import Resolved
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, LORA
from lib_sdtrain.train.data_plan import (
    bucket_lines,
    bucket_table,
    concept_rows,
    draws_of,
    group_lines,
    token_line,
    token_report,
)  # fmt: skip
from lib_sdtrain.train.forms import forms_of
from lib_sdtrain.train.layout import child_specs, size_of
from lib_sdtrain.train.memory.need import memory_text, need
from lib_sdtrain.train.memory.parts import FP32, state_bytes, trained_weights
from lib_sdtrain.train.memory.table import is_known
from lib_sdtrain.train.optimizers.registry import trained_rates
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.spare_memory import whole_memory

SHOWN_PROMPTS = 20
NOTHING = "(nothing)"
"""What stands for the words of a caption that is dropped altogether."""
WORKING_OUT = "working out the memory of a model of another architecture"
LORA_BYTES = 2
STAGE_FACTS = ("steps", "images", "learning_rates", "buckets")


def forecast(plan: Plan) -> dict[str, Any]:
    """The document of `train --dry-run`."""
    draws = draws_of(plan)
    return outline(plan, draws) | {"prompts": sample_prompts(plan, draws)}


def outline(plan: Plan, draws: Draws) -> dict[str, Any]:
    """What a run comes to, without its words."""
    buckets = bucket_table(plan.materials, plan.settings.data)
    memory = need(plan, draws, buckets)
    return {
        "images": plan.pictures,
        "steps": plan.steps,
        "learning_rates": trained_rates(plan.settings, plan.pictures, plan.checkpoint.parameter_counts()),
        "concepts": [
            {
                **row,
                "class_images": len(material.class_pictures) + missing,
                "class_images_to_make": missing,
            }
            for row, material, missing in zip(
                concept_rows(plan.materials), plan.materials, plan.missing_class, strict=True
            )
        ],
        "buckets": buckets,
        "tokens": token_report(plan, draws),
        "memory_bytes": memory["total"],
        "memory": {**memory, "words": memory_text(memory)},
        "memory_available": whole_memory(plan.device),
        "disk_bytes": disk_bytes(plan),
    }


def forecast_stages(plans: Sequence[Plan]) -> Generator[Event, None, dict[str, Any]]:
    """The document of a run of one or more stages: the first one's, with the steps and disk of all, the most memory of
    any, and under `stages` what each comes to.

    Where the table does not have the model, so that working it out takes seconds, that is told.
    """
    documents = []
    for done, plan in enumerate(plans, 1):
        unknown = not is_known(plan.family, plan.settings.method)
        if unknown:
            yield Phase(name=WORKING_OUT, done=done - 1, total=len(plans))
        documents.append(forecast(plan))
        if unknown:
            yield Phase(name=WORKING_OUT, done=done, total=len(plans))
    if len(plans) == 1:
        return documents[0]
    rows = [
        {"resolution": plan.settings.data.resolution, **{key: document[key] for key in STAGE_FACTS}}
        for plan, document in zip(plans, documents, strict=True)
    ]
    hungriest = max(documents, key=lambda document: document["memory_bytes"])
    return {
        **documents[0], "steps": sum(document["steps"] for document in documents), "stages": rows,
        "memory_bytes": hungriest["memory_bytes"], "memory": hungriest["memory"],
        "disk_bytes": sum(document["disk_bytes"] for document in documents),
    }


def sample_prompts(plan: Plan, draws: Draws) -> list[str]:
    """The words of the first samples exactly as training will see them."""
    return [prompt.replace(ZEROED, NOTHING) for prompt in first_prompts(plan, draws)]


def first_prompts(plan: Plan, draws: Draws) -> Iterator[str]:
    """The words of the first samples."""
    for index in range(min(SHOWN_PROMPTS, plan.steps * plan.samples_a_step)):
        yield draws.at(index).prompt


def checkpoint_bytes(plan: Plan) -> int:
    """What all checkpoints of the run take."""
    every = plan.in_steps(plan.settings.save.every)
    if plan.settings.method.kind == EMBEDDING:
        size = trained_weights(plan) * FP32
    elif plan.settings.method.kind == LORA:
        size = trained_weights(plan) * LORA_BYTES * (2 if plan.settings.save.dtype == "fp32" else 1)
    else:
        forms = forms_of(plan.settings)
        size = sum(size_of(child_specs(plan.checkpoint, form.settings, plan.family)) for form in forms)
    return size * (1 + ((plan.steps - 1) // every if every else 0))


def run_bytes(plan: Plan) -> int:
    """What else the run writes: two states at the moment of saving, and class pictures."""
    pictures = sum(plan.missing_class) * math.prod(plan.target) * 2
    return 2 * state_bytes(plan) + pictures


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
    for number, stage in enumerate(document.get("stages", [document]), 1):
        if stage is not document:
            lines.append(f"stage {number}: {stage['resolution']} pixels, {stage['steps']} steps")
        lines += [*bucket_lines(stage["buckets"]), rates_line(stage["learning_rates"])]
    memory, disk = (document[key] / 2**30 for key in ("memory_bytes", "disk_bytes"))
    lines.append(f"about {memory:.1f} GB of memory, {disk:.1f} GB on disk")
    lines.append(f"memory is needed most for {document['memory']['words']}")
    if 0 < document["memory_available"] < document["memory_bytes"]:
        lines.append(f"that is more than there is ({document['memory_available'] / 2**30:.1f} GB): see --fit")
    lines.append(token_line(document["tokens"]))
    lines += ["", "Prompts as training will see them:", *(f"  {prompt!r}" for prompt in document["prompts"])]
    lines += ["", "Settings and where they came from:", *origin_lines(resolved)]
    return "\n".join(lines)


def rates_line(rates: Mapping[str, float]) -> str:
    """The learning rates in force, one where all are the same."""
    if len(set(rates.values())) == 1:
        return f"learning rate {next(iter(rates.values())):g}"
    return "learning rates " + ", ".join(f"{name} {rate:g}" for name, rate in rates.items())


def origin_lines(resolved: Resolved[RunSettings]) -> list[str]:
    """`  train.length = 800    (preset toybox-dreambooth)`, one line a setting."""
    lines = []
    for item in declared(RunSettings):
        value = get_path(resolved.settings, item.path)
        shown = f"{len(value)} given" if item_class(item) else "off" if value is None else value
        lines.append(f"  {item.path} = {shown}    ({resolved.origin(item.path)})")
    return lines
