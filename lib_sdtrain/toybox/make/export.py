"""Put the trained parts into one checkpoint in Stable Diffusion 1's layout, with the .yaml that the WebUI reads."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from torch import Tensor

from lib_sdtrain.model.family import Family, UNetConfig
from lib_sdtrain.model.keys import VAE, part_rows
from lib_sdtrain.model.writer import Written, write_checkpoint

UNKNOWN_SEED = 49408
# Relative to the WebUI's root: it must hold the text encoder's config.json and CLIP's tokenizer files.
TEXT_CONFIG_FOLDER = "models/sdtrain/toybox-clip"


def full_embedding(known: Tensor, ids: list[int], size: int) -> Tensor:
    """All `size` rows of the token embedding: the trained rows at `ids`, two-valued noise elsewhere.

    Words that training never saw get +s or -s in every place, s the trained rows' spread: each differs from every
    other, as a DreamBooth name must, and they compress well.
    """
    generator = torch.Generator().manual_seed(UNKNOWN_SEED)
    signs = torch.randint(0, 2, (size, known.shape[1]), generator=generator).float() * 2 - 1
    rows = signs * known.std().half().float()
    rows[torch.tensor(ids)] = known.float()
    return rows


def with_unit_variance(vae: dict[str, Tensor], mean: Tensor, std: Tensor, scale_factor: float) -> dict[str, Tensor]:
    """The autoencoder's weights such that `scale_factor` times its latents has mean 0 and variance 1 per channel.

    `mean` and `std` (4,) are those of the latents as trained. Only the 1x1 convolutions on either side of the latents
    change: quant_conv gives (z - mean) / (std * factor), its log variances move along, post_quant_conv undoes it.
    """
    changed = dict(vae)
    gain = 1.0 / (std * scale_factor)
    weight, bias = vae["quant_conv.weight"].clone(), vae["quant_conv.bias"].clone()
    channels = len(mean)
    weight[:channels] *= gain[:, None, None, None]
    bias[:channels] = (bias[:channels] - mean) * gain
    bias[channels:] += 2 * gain.log()
    after = vae["post_quant_conv.weight"]
    changed["quant_conv.weight"], changed["quant_conv.bias"] = weight, bias
    changed["post_quant_conv.weight"] = after / gain[None, :, None, None]
    changed["post_quant_conv.bias"] = vae["post_quant_conv.bias"] + (after * mean[None, :, None, None]).sum((1, 2, 3))
    return changed


def file_shapes(family: Family) -> dict[str, tuple[int, ...]]:
    """Key -> shape in the file: SD1 stores the autoencoder's attention as 1x1 convolutions."""
    from lib_sdtrain.model.build import empty_modules

    modules = empty_modules(family)
    shapes = {}
    for part, rows in part_rows(family).items():
        state = modules[part].state_dict()
        for row in rows:
            shape = tuple(state[row.names[0]].shape)
            attention = part == VAE and ".attn_1." in row.key and len(shape) == 2
            shapes[row.key] = (*shape, 1, 1) if attention else shape
    return shapes


def tensors(family: Family, states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """All tensors of the file in fp16. `states`: part -> state of its module."""
    shapes = file_shapes(family)
    found = {}
    for part, rows in part_rows(family).items():
        for row in rows:
            found[row.key] = row.to_file(states[part], shapes[row.key]).half().contiguous()
    return found


def describe(family: Family) -> str:
    """The side-by-side .yaml, in the form that LDM and the WebUI read."""
    latent_side = family.resolution // family.vae.downscale
    params = {
        "linear_start": family.schedule.linear_start,
        "linear_end": family.schedule.linear_end,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "timesteps": family.schedule.timesteps,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": latent_side,
        "channels": family.unet.in_channels,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "monitor": "val/loss_simple_ema",
        "scale_factor": family.scale_factor,
        "use_ema": False,
        "unet_config": _module("diffusionmodules.openaimodel.UNetModel", _unet_params(family.unet, latent_side)),
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": _vae_params(family)},
        "cond_stage_config": _module("encoders.modules.FrozenCLIPEmbedder", {"version": TEXT_CONFIG_FOLDER}),
    }
    model = {"base_learning_rate": 1.0e-4, "target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}
    return yaml.safe_dump({"model": model}, sort_keys=False)


def _module(name: str, params: dict[str, object]) -> dict[str, object]:
    return {"target": f"ldm.modules.{name}", "params": params}


def _unet_params(unet: UNetConfig, latent_side: int) -> dict[str, object]:
    levels = range(len(unet.channel_mult))
    return {
        "image_size": latent_side,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "model_channels": unet.model_channels,
        "attention_resolutions": [2**level for level in reversed(levels) if unet.transformer_depth[level]],
        "num_res_blocks": unet.num_res_blocks[0],
        "channel_mult": list(unet.channel_mult),
        "num_heads": unet.heads[0],
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": unet.context_dim,
        "use_checkpoint": False,
        "legacy": False,
    }


def _vae_params(family: Family) -> dict[str, object]:
    vae = family.vae
    details = {
        "double_z": True,
        "z_channels": vae.z_channels,
        "resolution": family.resolution,
        "in_channels": vae.in_channels,
        "out_ch": vae.out_channels,
        "ch": vae.ch,
        "ch_mult": list(vae.ch_mult),
        "num_res_blocks": vae.num_res_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    loss = {"target": "torch.nn.Identity"}
    return {"embed_dim": vae.z_channels, "monitor": "val/rec_loss", "ddconfig": details, "lossconfig": loss}


def write(out: Path, family: Family, states: dict[str, dict[str, Tensor]], metadata: dict[str, str]) -> Written:
    """Write `out` and its .yaml. `states` as in `tensors`."""
    return write_checkpoint(out, tensors(family, states), metadata, describe(family))


