"""Writing a trained LoRA in the form that the WebUI lists and loads."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.family import ARCHITECTURES, SD1, SD2, SDXL, Family
from lib_sdtrain.model.header import layout_order
from lib_sdtrain.model.mapped import tensor_bytes
from lib_sdtrain.model.metadata import Parent
from lib_sdtrain.model.writer import Written, specs_of, write_checkpoint
from lib_sdtrain.settings.run_method import MethodSettings
from lib_sdtrain.train.child import finite, run_provenance
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.trainer import Trainer


def write_lora(plan: Plan, trainer: Trainer, out: Path, parents: Mapping[str, Parent]) -> Written:
    """Write the LoRA layers of all trained parts to `out`, read back and verified."""
    tensors = lora_tensors(trainer)
    return write_hashed(out, tensors, run_provenance(plan, trainer.step, parents) | kohya_metadata(plan))


def write_hashed(out: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Written:
    """Write the tensors of a LoRA, read back and verified, with the hash of their bytes by which the WebUI knows it."""
    digest = hashlib.sha256()
    for key in layout_order(specs_of(tensors)):
        digest.update(tensor_bytes(tensors[key]))
    return write_checkpoint(out, tensors, {**metadata, "sshs_model_hash": digest.hexdigest()}, verify=True)


def lora_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Key in the file -> tensor: down, up and alpha of each layer, in fp16 unless save.dtype says otherwise."""
    found, dtype = {}, SHORT_NAMES.get(trainer.settings.save.dtype, torch.float16)
    with trainer.shown_weights():
        for part in trainer.model_parts.values():
            for key, value in part.state_dict().items():
                found[key] = finite(key, value.detach().to("cpu", dtype, copy=True).contiguous())
            for name, layer in part.items():
                found[f"{name}.alpha"] = torch.tensor(float(layer.alpha), dtype=dtype)
    return found


_BASES = {SD1: "sd_v1", SD2: "sd_v2", SDXL: "sdxl_base_v1-0"}


def kohya_metadata(plan: Plan) -> dict[str, str]:
    """What the WebUI reads to put the file under the right family and to show its rank."""
    return family_metadata(plan.family, plan.settings.method) | {
        "ss_clip_skip": str(plan.settings.model.clip_skip),
        "ss_resolution": f"({plan.target[0]}, {plan.target[1]})",
        "ss_output_name": plan.name,
    }


def family_metadata(family: Family, method: MethodSettings) -> dict[str, str]:
    """The part of it that the model and the LoRA's size tell."""
    found = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(method.rank),
        "ss_network_alpha": str(method.alpha),
        "ss_base_model_version": _BASES[family.name],
        "ss_v2": str(family.name == SD2),
        "modelspec.architecture": f"{ARCHITECTURES[family.name]}/lora",
    }
    if method.conv_rank is not None:
        sizes = {"conv_dim": str(method.conv_rank), "conv_alpha": str(method.conv_alpha or method.conv_rank)}
        found["ss_network_args"] = json.dumps(sizes)
    return found
