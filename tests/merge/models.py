"""Checkpoints with every key of the published families and hardly any weights."""
from __future__ import annotations

import re
from functools import cache

import torch

from lib_sdtrain.events import CancelToken, Finished
from lib_sdtrain.merge import merge
from lib_sdtrain.merge.session import MergeSession
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.model.hashes import HashCache
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.model.writer import write_checkpoint
from lib_sdtrain.settings.merge import MergeSettings

UNET, VAE = "model.diffusion_model.", "first_stage_model."
POSITION_IDS = {
    "sd1": "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "sdxl": "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
}
LOGIT_SCALE = {"sd2": "cond_stage_model.model.logit_scale", "sdxl": "conditioner.embedders.1.model.logit_scale"}
_NORM = re.compile(r"norm|\.ln_|(in_layers|out_layers|out)\.0\.")
_CONV = re.compile(
    r"in_layers\.2|out_layers\.3|\.conv\d?\.|\.op\.|conv_in|conv_out|input_blocks\.0\.0|diffusion_model\.out\.2|"
    r"skip_connection|nin_shortcut|quant_conv|\.attn_1\.|(down|up)sample"
)


@cache
def key_list(name):
    """Every tensor name of a published family, with the extra ones that files carry."""
    keys = [row.key for rows in part_rows(PUBLISHED[name]).values() for row in rows]
    keys += [table[name] for table in (POSITION_IDS, LOGIT_SCALE) if name in table]
    if name == "sd1":
        keys += ["betas", "alphas_cumprod", "posterior_mean_coef1", "sqrt_recipm1_alphas_cumprod"]
    if name == "sd2" and "cond_stage_model.model.text_projection" not in keys:
        keys.append("cond_stage_model.model.text_projection")
    return list(dict.fromkeys(keys))


def shape_of(key, name, channels=4):
    """A shape of the right number of dimensions, a few values in all."""
    if key.endswith("position_ids"):
        return (1, 77)
    if key.endswith("logit_scale"):
        return ()
    if key.startswith(("betas", "alphas", "posterior", "sqrt")):
        return (10,)
    if key.endswith("bias") or _NORM.search(key):
        return (4,)
    if key == UNET + "input_blocks.0.0.weight":
        return (4, channels, 3, 3)
    if _CONV.search(key) or (name == "sd1" and key.startswith(UNET) and "proj_" in key):
        return (4, 4, 1, 1) if "skip" in key or "attn_1" in key or "proj_" in key else (4, 4, 3, 3)
    return (4, 4)


def state(name="sd1", seed=0, fill=None, dtype=torch.float16, channels=4):
    """A state dict of random numbers, or of `fill` everywhere."""
    return {key: tensor.clone() for key, tensor in _state(name, seed, fill, dtype, channels).items()}


@cache
def _state(name, seed, fill, dtype, channels):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key in key_list(name):
        shape = shape_of(key, name, channels)
        if key.endswith("position_ids"):
            tensors[key] = torch.arange(77).reshape(1, 77)
        elif shape == (10,):
            tensors[key] = torch.linspace(0.1, 0.9, 10) + seed
        else:
            values = torch.randn(shape, generator=generator) if fill is None else torch.full(shape, float(fill))
            tensors[key] = values.to(dtype)
    return tensors


def write(path, tensors, metadata=None, yaml=None):
    """The state dict as a file; gives the path as text."""
    write_checkpoint(path, tensors, metadata or {"format": "pt"}, yaml)
    return str(path)


def wanted(tmp_path, **settings):
    """The settings of a merge into `tmp_path`."""
    settings.setdefault("out", str(tmp_path / "out.safetensors"))
    listed = {name: tuple(settings[name]) for name in ("model", "lora", "search", "presets") if name in settings}
    return MergeSettings(**{**settings, **listed})


def run(tmp_path, **settings):
    """Merge into a file; gives the `Finished` document and all other events."""
    events = list(merge(wanted(tmp_path, **settings), CancelToken(), HashCache(tmp_path / "hashes.json")))
    assert isinstance(events[-1], Finished)
    return events[-1].result, events[:-1]


def read(path):
    """The tensors of a file."""
    file = open_tensors(path)
    return {key: file.tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def merged(tmp_path, **settings):
    """The tensors of a merge, not written to a file (a test of its own shows that they are the same)."""
    with MergeSession(wanted(tmp_path, **settings)) as session:
        return {key: tensor.clone() for key, tensor in session.tensors()}


def same(one, other):
    """Whether two state dicts are equal bit for bit."""
    if set(one) != set(other):
        return False
    return all(one[key].dtype == other[key].dtype and _bytes(one[key]) == _bytes(other[key]) for key in one)


def _bytes(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
