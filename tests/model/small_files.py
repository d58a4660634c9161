"""Small checkpoints for tests of files: all three families, few words, EMA, .ckpt."""
from dataclasses import replace
from functools import cache

import torch

from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, SDXL, UNetConfig
from lib_sdtrain.model.keys import ema_key
from lib_sdtrain.model.writer import write_checkpoint
from tests.tiny import POSITION_IDS, VAE, ldm_yaml, random_tensors

_UNET = UNetConfig(
    model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), transformer_depth=(1, 1), context_dim=64,
    heads=(4, 4),
)  # fmt: skip


@cache
def small_family(name=SD1):
    """A family with two levels and 600 words."""
    known = PUBLISHED[name]
    unet = replace(_UNET, linear_projection=name != SD1)
    if name == SDXL:
        unet = replace(unet, context_dim=128, adm_in_channels=6 * 256 + 64)
    size = {"width": 64, "layers": 3, "intermediate": 128, "vocab_size": 600}
    text = tuple(replace(config, **size, projection=64 if config.projection else None) for config in known.text)
    return replace(known, unet=unet, vae=VAE, text=text)


def small_tensors(name=SD1, dtype=torch.float32, ema=False, seed=0):
    """The state dict of a checkpoint, with the extra tensors that published files carry."""
    tensors = random_tensors(small_family(name), seed, dtype)
    if ema:
        unet = [key for key in tensors if key.startswith("model.diffusion_model.")]
        tensors |= {ema_key(key): tensors[key].float() + 1 for key in unet}
        tensors["model_ema.decay"] = torch.tensor(0.9999)
        tensors["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
    return tensors


def yaml_text(name=SD1):
    """The side-by-side description of the small model."""
    return ldm_yaml(small_family(name))


def write_small(path, tensors=None, name=SD1, metadata=None):
    """A checkpoint file (.safetensors or .ckpt) and its yaml; gives the path."""
    tensors = small_tensors(name) if tensors is None else tensors
    if path.suffix == ".safetensors":
        write_checkpoint(path, tensors, metadata or {"format": "pt"}, yaml_text(name))
    else:
        torch.save({"state_dict": tensors, "global_step": 5}, path)
        path.with_suffix(".yaml").write_text(yaml_text(name))
    return path


__all__ = ["POSITION_IDS", "SD1", "SD2", "SDXL", "small_family", "small_tensors", "write_small", "yaml_text"]
