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
from lib_sdtrain.model.metadata import TRAIN, Parent, provenance
from lib_sdtrain.model.writer import CheckpointWriter, Written
from lib_sdtrain.settings.run_method import MethodSettings
from lib_sdtrain.train.child import data_hash, determining_settings, finite, versions
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.trainer import Trainer


def write_lora(plan: Plan, trainer: Trainer, out: Path, parents: Mapping[str, Parent]) -> Written:
    """Write the LoRA layers of all trained parts to `out`, read back and verified."""
    tensors = lora_tensors(trainer)
    specs = {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}
    metadata = provenance(
        TRAIN, determining_settings(plan.settings), parents, versions(), data=f"{data_hash(plan)}:{trainer.step}",
    ) | kohya_metadata(plan)
    metadata["sshs_model_hash"] = content_hash([tensors[key] for key in CheckpointWriter(out, specs, {}).keys])
    with CheckpointWriter(out, specs, metadata, verify=True) as writer:
        for key in writer.keys:
            writer.write(key, tensors[key])
    return writer.result


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


def content_hash(tensors: list[Tensor]) -> str:
    """SHA-256 of the tensors' bytes in the file's order: how the WebUI knows a LoRA (`sshs_model_hash`)."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
