"""Writing the trained checkpoint: every key, shape and number format of its parent, only trained parts changed."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import lib_sdtrain
from lib_sdtrain.model.build import to_file_tensors
from lib_sdtrain.model.metadata import TRAIN, Parent, provenance
from lib_sdtrain.model.writer import CheckpointWriter, Written
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.families import config_text, markers
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.trainer import Trainer


def write_child(plan: Plan, trainer: Trainer, out: Path, parents: Mapping[str, Parent]) -> Written:
    """Write the trained model to `out`, read back and verified. Untouched tensors are copied byte for byte."""
    checkpoint = plan.checkpoint
    trained = {}
    for name, part in trainer.parts.items():
        for key, tensor in to_file_tensors(name, part, checkpoint).items():
            trained[checkpoint.file_keys[key]] = tensor
    marks = markers(trainer.model.family, checkpoint)
    trained |= marks
    tensors = checkpoint.tensors
    specs = {key: (tensors.dtype(key), tensors.shape(key)) for key in tensors.keys()}  # noqa: SIM118 - not a dict
    specs |= {key: (value.dtype, tuple(value.shape)) for key, value in marks.items()}
    metadata = provenance(
        TRAIN, determining_settings(plan.settings), parents, versions(),
        data=data_hash(plan) + f":{trainer.step}",
    )
    described = config_text(trainer.model.family, checkpoint)
    with CheckpointWriter(out, specs, metadata, described, verify=True) as writer:
        for key in writer.keys:
            if key in trained:
                writer.write(key, trained[key].detach().to("cpu", specs[key][0]))
            else:
                writer.write_raw(key, tensors.raw(key))
    return writer.result


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
    for group in ("save", "preview"):
        plain.pop(group, None)
    for name in ("checkpoint", "vae"):
        plain["model"].pop(name, None)
    for name in ("cache_latents", "cache_dir"):
        plain["data"].pop(name, None)
    if plain["method"]["kind"] == "full":
        for name in ("rank", "alpha"):
            plain["method"].pop(name)
    plain["data"]["concepts"] = [
        {key: value for key, value in concept.items() if key not in ("name", "instance_dir", "class_dir")}
        for concept in plain["data"]["concepts"]
    ]
    return plain


def data_hash(plan: Plan) -> str:
    """A hash of everything trained on: the pictures' contents and their captions, concept by concept."""
    entries = [
        [[[p.sha256, p.caption] for p in material.pictures], [[p.sha256, p.caption] for p in material.class_pictures]]
        for material in plan.materials
    ]
    return hashlib.sha256(json.dumps(entries, ensure_ascii=False).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What made the file."""
    return {"sdtrain": lib_sdtrain.__version__, "torch": torch.__version__}
