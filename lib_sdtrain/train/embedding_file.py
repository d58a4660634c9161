"""Writing a trained embedding in the form that the WebUI loads: the vectors of SD1 and SD2 as one tensor, SDXL's as
`clip_l` and `clip_g`.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.family import ARCHITECTURES
from lib_sdtrain.model.metadata import TRAIN, Parent, provenance
from lib_sdtrain.model.writer import CheckpointWriter, Written
from lib_sdtrain.train.child import data_hash, determining_settings, versions
from lib_sdtrain.train.embeddings import file_tensors
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.trainer import Trainer

ONLY = "emb_params"
"""The name of the one tensor, as in kohya's files; the WebUI takes any."""


def write_embedding(plan: Plan, trainer: Trainer, out: Path, parents: Mapping[str, Parent]) -> Written:
    """Write the trained embedding to `out`, read back and verified; fp32 unless save.dtype says otherwise."""
    dtype = SHORT_NAMES.get(plan.settings.save.dtype, torch.float32)
    with trainer.shown_weights():
        tensors = {
            key or ONLY: value.to("cpu", dtype, copy=True).contiguous()
            for key, value in file_tensors(trainer.inversions.trained).items()
        }
    specs = {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}
    metadata = provenance(
        TRAIN, determining_settings(plan.settings), parents, versions(), data=f"{data_hash(plan)}:{trainer.step}",
    ) | {
        "modelspec.title": plan.settings.embedding.name,
        "modelspec.architecture": f"{ARCHITECTURES[plan.family.name]}/textual-inversion",
    }
    with CheckpointWriter(out, specs, metadata, verify=True) as writer:
        for key in writer.keys:
            writer.write(key, tensors[key])
    return writer.result
