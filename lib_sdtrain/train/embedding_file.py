"""Writing a trained embedding in the form that the WebUI loads: the vectors of SD1 and SD2 as one tensor, SDXL's as
`clip_l` and `clip_g`.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.family import ARCHITECTURES
from lib_sdtrain.model.metadata import Parent
from lib_sdtrain.model.writer import Written, write_checkpoint
from lib_sdtrain.train.child import run_provenance
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
    metadata = run_provenance(plan, trainer.step, parents) | {
        "modelspec.title": plan.settings.embedding.name,
        "modelspec.architecture": f"{ARCHITECTURES[plan.family.name]}/textual-inversion",
    }
    return write_checkpoint(out, tensors, metadata, verify=True)
