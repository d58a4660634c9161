"""The random models that the parity cases were sampled from, remade in memory from their tables of shapes.

Every weight comes from one seeded CPU generator in the order of the table: N(0, gain² / fan-in) for matrices and
kernels, so that prompt, step and clip skip all matter in what comes out.
"""
from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from lib_sdtrain.model.build import LoadedModel, load_model
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.detection import detect
from lib_sdtrain.model.ldm_config import apply_config

DATA = Path(__file__).parents[1] / "data" / "parity"
SEEDS = {"tiny-sd1": 1234, "tiny-sdxl": 777, "tiny-sd2v": 99}
HASHES = {"tiny-sd1": "06905ec472", "tiny-sdxl": "b78f41bea5", "tiny-sd2v": "1f9330eaef"}
NORMS = ("in_layers.0.weight", "out_layers.0.weight", "out.0.weight")
CLIP_NORMS = ("layer_norm1.weight", "layer_norm2.weight")


@dataclass
class MemoryTensors:
    """Stands in for an opened file."""

    tensors: dict[str, torch.Tensor]

    def shapes(self):
        return {key: tuple(value.shape) for key, value in self.tensors.items()}

    def keys(self):
        return list(self.tensors)

    def forget_pages(self):
        pass  # it is no file's

    def tensor(self, key):
        return self.tensors[key]

    def shape(self, key):
        return tuple(self.tensors[key].shape)


def _table(kind):
    if kind == "tiny-sd2v":
        rows = json.loads(gzip.decompress((DATA / "shapes-sd2.json.gz").read_bytes()))
        return [(key, shape, key) for key, shape in rows]
    return json.loads(gzip.decompress((DATA / "shapes.json.gz").read_bytes()))[kind]


def _fan_in(key, shape):
    return shape[0] if "text_projection" in key else math.prod(shape[1:])


def _sd1_value(tag, shape, noise):
    if len(shape) < 2:
        norm = ("norm" in tag and tag.endswith("weight")) or tag.endswith((*NORMS, *CLIP_NORMS))
        return 1.0 + 0.1 * noise if norm else 0.02 * noise
    if "token" in tag and "embedding" in tag:
        return noise * 0.5
    if "position_embedding" in tag:
        return noise * 0.2
    gain = 0.8 if tag.endswith("unet.out.2.weight") else 0.35 if tag.endswith("decoder.conv_out.weight") else 1.0
    text_qk = "text." in tag and (".q_proj" in tag or ".k_proj" in tag)
    gain = 1.4 if text_qk or tag.endswith(("to_q.weight", "to_k.weight")) else gain
    return noise * (gain / math.sqrt(math.prod(shape[1:])))


def _other_value(key, shape, noise):
    if "logit_scale" in key:
        return torch.tensor(4.6)
    if "token_embedding" in key:
        return noise * 0.5
    if "position" in key:
        return noise * 0.2
    if len(shape) >= 2:
        gain = 0.8 if key.endswith("diffusion_model.out.2.weight") else 1.0
        gain = 0.35 if key.endswith("decoder.conv_out.weight") else gain
        return noise * gain / math.sqrt(_fan_in(key, shape))
    norm = ("norm" in key or "ln_" in key or key.endswith(NORMS)) and key.endswith("weight")
    return 1 + 0.1 * noise if norm else 0.02 * noise


def tensors(kind):
    """Key -> tensor, float32."""
    generator = torch.Generator().manual_seed(SEEDS[kind])
    made = {}
    for key, shape, tag in _table(kind):
        if key.endswith("position_ids"):
            made[key] = torch.arange(77).reshape(1, 77)
            continue
        noise = torch.randn(shape, generator=generator)
        value = _sd1_value(tag, shape, noise) if kind == "tiny-sd1" else _other_value(key, shape, noise)
        made[key] = value.reshape(shape)
    return made


@cache
def model(kind: str) -> LoadedModel:
    """The model in memory, fp32."""
    made = tensors(kind)
    family = detect({key: tuple(value.shape) for key, value in made.items()})
    family = apply_config(family, DATA / f"{kind}.yaml")
    checkpoint = Checkpoint(Path(f"{kind}.safetensors"), MemoryTensors(made), family, {key: key for key in made})
    return load_model(checkpoint, "cpu", torch.float32)
