"""Writing the trained checkpoint: every key, shape and number format of its parent, only trained parts changed."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lib_sdtrain
from lib_sdtrain.data.concepts import Picture
from lib_sdtrain.errors import JobFailed
from lib_sdtrain.model.build import to_file_tensors
from lib_sdtrain.model.keys import UNET, ema_key, part_rows
from lib_sdtrain.model.metadata import TRAIN, Parent, provenance
from lib_sdtrain.model.parts import EMA_COUNTERS
from lib_sdtrain.model.writer import CheckpointWriter, Written
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_data import CLASS_FOLDER
from lib_sdtrain.settings.run_method import LORA
from lib_sdtrain.train.data_plan import beyond_pictures
from lib_sdtrain.train.families import config_text, markers
from lib_sdtrain.train.layout import child_specs, expected_tensors, keeps_average
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.trainer import Trainer


def write_child(plan: Plan, trainer: Trainer, out: Path, parents: Mapping[str, Parent]) -> Written:
    """Write the trained model to `out` as the plan's settings have it, read back and verified. Untouched tensors are
    copied byte for byte.
    """
    checkpoint = plan.checkpoint
    specs = child_specs(checkpoint, plan.settings, trainer.model.family)
    metadata = run_provenance(plan, trainer.step, parents)
    described = config_text(trainer.model.family, checkpoint)
    expects = expected_tensors(checkpoint, plan.settings)
    writer = CheckpointWriter(out, specs, metadata, described, verify=True, expects=expects)
    with trainer.shown_weights(plan.settings.save.ema), writer:
        trained = trained_tensors(trainer, plan)
        for key in writer.keys:
            dtype = specs[key][0]
            if key in trained:
                writer.write(key, finite(key, trained[key].detach().to("cpu", dtype)))
            elif checkpoint.tensors.dtype(key) != dtype:
                writer.write_cast(key, checkpoint.tensors.tensor(key))
            else:
                writer.write_raw(key, checkpoint.tensors.raw(key))
    return writer.result


def run_provenance(plan: Plan, step: int, parents: Mapping[str, Parent]) -> dict[str, str]:
    """How what a run writes at a step came to be."""
    settings = determining_settings(plan.settings)
    return provenance(TRAIN, settings, parents, versions(), data=f"{data_hash(plan)}:{step}")


def finite(key: str, tensor: Tensor) -> Tensor:
    """The tensor as it is to be written. Raises `JobFailed` when its number format cannot hold what was trained."""
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise JobFailed(
            f"{key} holds values that {str(tensor.dtype).removeprefix('torch.')} cannot hold", where="save.dtype",
            fix="go on with the run with --set save.dtype=fp32; its saved state is good",
        )
    return tensor


def trained_tensors(trainer: Trainer, plan: Plan) -> dict[str, Tensor]:
    """Name in the file -> tensor of everything that is not the parent's: trained parts, average, markers."""
    checkpoint = plan.checkpoint
    found = dict(markers(trainer.model.family, checkpoint))
    for name, part in trainer.model_parts.items():
        for key, tensor in to_file_tensors(name, part, checkpoint).items():
            found[checkpoint.file_keys[key]] = tensor
    if keeps_average(plan.settings):
        weights = {
            name.removeprefix(f"{UNET}."): value for name, value in trainer.average.weights.items()
            if name.startswith(f"{UNET}.")
        }
        for row in part_rows(checkpoint.family)[UNET]:
            found[ema_key(row.key)] = row.to_file(weights, checkpoint.shape(row.key))
        decay, updates = EMA_COUNTERS
        found[decay] = torch.tensor(trainer.settings.ema.decay, dtype=torch.float32)
        found[updates] = torch.tensor(trainer.average.updates, dtype=torch.int32)
    return found


ALWAYS_RECORDED = {
    "model": {"clip_skip", "prediction_type"},
    "data": {
        "concepts", "resolution", "resize", "pad_color", "random_crop", "flip_p", "caption_dropout_rate",
        "shuffle_caption", "keep_tokens", "tag_dropout_rate",
    },
    "method": {"kind", "train_unet", "train_text_encoder", "rank", "alpha"},
    "train": {
        "length", "batch_size", "gradient_accumulation_steps", "learning_rate", "text_encoder_lr", "optimizer",
        "optimizer_args", "lr_scheduler", "lr_warmup", "max_grad_norm", "mixed_precision", "gradient_checkpointing",
        "seed",
    },
    "loss": {"prior_loss_weight", "prior_reduction", "min_snr_gamma", "noise_offset"},
}
"""What every file says. Settings that came later stand in it where they are not at their default, so that a run that
does not use them goes on giving the same file."""

CONCEPT_PATHS = (
    "name", "instance_dir", "class_dir", "metadata_file", "group_weights_file", "picture_weights", "mask_dir",
)
"""What is left out of a concept's settings: names and files, whose contents `data_hash` covers."""
LATER = {"weight_column": "", "class_from": CLASS_FOLDER}
"""A concept's settings that came later, and their defaults: they are left out where they are not used."""


def determining_settings(settings: RunSettings) -> dict[str, Any]:
    """The settings that determine the weights: without folders, names, and what only says when to save or draw."""
    plain, changed = to_plain(settings), to_plain(settings, only_changed=True)
    plain = {
        group: {
            name: value for name, value in values.items()
            if name in ALWAYS_RECORDED.get(group, ()) or name in changed.get(group, {})
        }
        for group, values in plain.items() if group in ALWAYS_RECORDED or group in changed
    }
    for group in ("save", "preview", "log"):
        plain.pop(group, None)
    if "validation" in plain:  # these are taken out of what is trained on; the rest only looks
        taken_out = ("fraction", "count")
        plain["validation"] = {key: value for key, value in plain["validation"].items() if key in taken_out}
        if not plain["validation"]:
            plain.pop("validation")
    for name in ("checkpoint", "vae", "embeddings_dir"):
        plain["model"].pop(name, None)
    for name in ("cache_latents", "cache_text_embeddings", "cache_dir", "tag_aliases", "class_drawn_by"):
        plain["data"].pop(name, None)
    if plain["method"]["kind"] != LORA:
        for name in ("rank", "alpha", "conv_rank", "conv_alpha", "block_weights"):
            plain["method"].pop(name, None)
    plain["data"]["concepts"] = [
        {key: value for key, value in concept.items()
         if key not in CONCEPT_PATHS and (key not in LATER or value != LATER[key])}
        for concept in plain["data"]["concepts"]
    ]
    return plain


def data_hash(plan: Plan) -> str:
    """A hash of everything trained on: the pictures' contents and their captions, concept by concept, and where they
    are used their weights, masks, boxes, scores and other names of tags. A later stage's includes what the former ones
    were trained on.
    """
    digest = hashlib.sha256(b"[")
    for number, material in enumerate(plan.materials):
        digest.update(b"[" if number == 0 else b", [")
        _digest_pictures(digest, material.pictures)
        digest.update(b", ")
        _digest_pictures(digest, material.class_pictures)
        digest.update(b"]")
    if beyond := beyond_pictures(plan):
        digest.update(f", {json.dumps(beyond, ensure_ascii=False)}".encode())
    if plan.earlier:
        digest.update(f", {json.dumps({'earlier': plan.earlier}, ensure_ascii=False)}".encode())
    digest.update(b"]")
    return digest.hexdigest()


def _digest_pictures(digest: Any, pictures: Iterable[Picture]) -> None:
    """The JSON text of [[SHA-256, caption], ...], piece by piece."""
    digest.update(b"[")
    for number, picture in enumerate(pictures):
        entry = json.dumps([picture.sha256, picture.caption], ensure_ascii=False)
        digest.update((", " * (number > 0) + entry).encode())
    digest.update(b"]")


def versions() -> dict[str, str]:
    """What made the file."""
    return {"sdtrain": lib_sdtrain.__version__, "torch": torch.__version__}
