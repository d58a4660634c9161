"""Small random models in Stable Diffusion's own layouts, made on the fly and the same on every machine."""
from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from zlib import crc32

import torch
import yaml

from lib_sdtrain.model.build import empty_modules
from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, SDXL, Family, TextConfig, UNetConfig, VAEConfig
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.model.writer import write_checkpoint

VAE = VAEConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
POSITION_IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


@cache
def tiny_family(name: str = SD1) -> Family:
    """A family with every block of the published one and as few weights as its layers allow."""
    known = PUBLISHED[name]
    if name == SD1:
        unet = UNetConfig(model_channels=32, channel_mult=(1, 1, 2, 2), context_dim=64, heads=(4,) * 4)
        return replace(known, unet=unet, vae=VAE, text=(_small(known.text[0], 64, 4),))
    if name == SD2:
        unet = replace(known.unet, model_channels=32, channel_mult=(1, 1, 2, 2), context_dim=64, heads=(2, 2, 4, 4))
        return replace(known, unet=unet, vae=VAE, text=(_small(known.text[0], 64, 3),))
    if name == SDXL:
        text = (_small(known.text[0], 64, 3), replace(_small(known.text[1], 64, 3), projection=64))
        unet = replace(
            known.unet, model_channels=32, channel_mult=(1, 1, 1), transformer_depth=(0, 1, 1), middle_depth=1,
            context_dim=128, heads=(2, 2, 2), adm_in_channels=64 + 6 * 256,
        )
        return replace(known, unet=unet, vae=VAE, text=(replace(text[0], hidden_index=2), text[1]))
    raise KeyError(name)


def _small(text: TextConfig, width: int, layers: int) -> TextConfig:
    return replace(text, width=width, layers=layers, intermediate=width * 2)


def random_tensors(family: Family, seed: int = 0, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """Every tensor of the family under its LDM/SGM key; a seed of its own for each key."""
    modules = empty_modules(family)
    tensors = {}
    for part, rows in part_rows(family).items():
        shapes = {name: tuple(value.shape) for name, value in modules[part].state_dict().items()}
        for row in rows:
            generator = torch.Generator().manual_seed(crc32(row.key.encode(), seed))  # torch keeps 32 bits of a seed
            state = {name: _value(name, shapes[name], generator) for name in row.names}
            tensors[row.key] = row.to_file(state, _file_shape(row, shapes)).to(dtype).contiguous()
    if family.name == SD1:
        tensors[POSITION_IDS] = torch.arange(77).reshape(1, 77)
        tensors["alphas_cumprod"] = family.schedule.table()
    return tensors


def _value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if "embedding" in name:
        return noise * 0.3
    if len(shape) >= 2:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * noise if name.endswith("weight") else 0.02 * noise


def _file_shape(row: object, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    first = shapes[row.names[0]]
    shape = (first[0] * len(row.names), *first[1:])
    if row.transposed:
        return shape[::-1]
    one_by_one = row.key.startswith("first_stage_model.") and ".attn_1." in row.key and len(shape) == 2
    return (*shape, 1, 1) if one_by_one else shape


def ldm_yaml(family: Family) -> str:
    """The description that the WebUI needs beside a scaled-down model."""
    unet = family.unet
    return yaml.safe_dump({"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": {
        "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "scale_factor": family.scale_factor,
        "unet_config": {"params": {
            "in_channels": unet.in_channels, "out_channels": 4, "model_channels": unet.model_channels,
            "channel_mult": list(unet.channel_mult), "num_heads": unet.heads[0], "context_dim": unet.context_dim,
        }},
    }}})


def write_tiny(path: Path, name: str = SD1, seed: int = 0, dtype: torch.dtype = torch.float16) -> Path:
    """A tiny checkpoint with its description beside it; `path` ends in .safetensors."""
    family = tiny_family(name)
    write_checkpoint(path, random_tensors(family, seed, dtype), {"format": "pt"}, ldm_yaml(family))
    return path
