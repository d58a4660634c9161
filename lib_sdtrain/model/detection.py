"""The family of a checkpoint from the names and shapes of its tensors.

Shapes tell everything about the architecture but three things: the number of attention heads, the prediction type
and the scale of the latents. Published sizes and a side-by-side `.yaml` (see `ldm_config`) tell those.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.family import (
    PUBLISHED,
    SD1,
    SD2,
    SDXL,
    V_PREDICTION,
    Family,
    NoiseSchedule,
    TextConfig,
    UNetConfig,
    VAEConfig,
)  # fmt: skip
from lib_sdtrain.model.keys.unet import PREFIX as UNET_PREFIX
from lib_sdtrain.model.keys.vae import PREFIX as VAE_PREFIX

Shapes = Mapping[str, tuple[int, ...]]


def detect(shapes: Shapes) -> Family:
    """The family, with the published number of heads where the sizes are the published ones.

    Raises `UserError` when there is no UNet of a known form.
    """
    unet = detect_unet(shapes)
    name = _family_name(shapes, unet)
    known = PUBLISHED[name]
    if replace(unet, in_channels=known.unet.in_channels) == replace(known.unet, heads=None):
        unet = replace(unet, heads=known.unet.heads)
    text = tuple(found for config in known.text if (found := detect_text(shapes, config)))
    vae = detect_vae(shapes) or known.vae
    family = replace(known, unet=unet, text=text or known.text, vae=vae)
    if "v_pred" in shapes:
        family = replace(family, prediction_type=V_PREDICTION)
    elif name == SD2:
        family = replace(family, prediction_guessed=True)
    if "ztsnr" in shapes:
        family = replace(family, schedule=NoiseSchedule(zero_terminal_snr=True))
    return family


def _family_name(shapes: Shapes, unet: UNetConfig) -> str:
    if any(key.startswith("conditioner.embedders.") for key in shapes) or unet.adm_in_channels is not None:
        return SDXL
    if any(key.startswith("cond_stage_model.model.") for key in shapes) or unet.linear_projection:
        return SD2
    return SD1


def _first(shapes: Shapes, pattern: str) -> tuple[int, ...] | None:
    matches = re.compile(pattern).fullmatch
    return next((shape for key, shape in shapes.items() if matches(key)), None)


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the pattern's group captures; 0 when nothing matches."""
    begins = re.compile(pattern).match
    return max((int(found[1]) + 1 for key in shapes if (found := begins(key))), default=0)


def detect_unet(shapes: Shapes) -> UNetConfig:
    """The UNet's architecture; `heads` is None. Raises `UserError` when the blocks are of no known form."""
    inner = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    first = inner.get("input_blocks.0.0.weight")
    last = inner.get("out.2.weight")
    if first is None or last is None or len(first) != 4:
        raise UserError("it holds no UNet of Stable Diffusion", fix="give a whole SD1, SD2 or SDXL checkpoint")
    levels = _walk_levels(inner)
    context = _first(inner, r"(input|output|middle)_blocks?\..*\.attn2\.to_k\.weight")
    projection = _first(inner, r".*\.proj_in\.weight")
    label = inner.get("label_emb.0.0.weight")
    return UNetConfig(
        in_channels=first[1], out_channels=last[0], model_channels=first[0],
        channel_mult=tuple(channels // first[0] for channels, _, _ in levels),
        num_res_blocks=tuple(count for _, count, _ in levels),
        transformer_depth=tuple(depth for _, _, depth in levels),
        middle_depth=_count(inner, r"middle_block\.1\.transformer_blocks\.(\d+)\."),
        context_dim=context[1] if context else 0, heads=None,
        linear_projection=projection is not None and len(projection) == 2,
        adm_in_channels=label[1] if label else None,
    )


def _walk_levels(inner: Shapes) -> list[tuple[int, int, int]]:
    """(channels, residual blocks, transformer depth) of each level, in the order of the forward pass."""
    levels: list[list[int]] = [[0, 0, 0]]
    for number in range(1, _count(inner, r"input_blocks\.(\d+)\.")):
        out = inner.get(f"input_blocks.{number}.0.out_layers.3.weight")
        if out is not None:
            depth = _count(inner, rf"input_blocks\.{number}\.1\.transformer_blocks\.(\d+)\.")
            levels[-1] = [out[0], levels[-1][1] + 1, depth]
        elif f"input_blocks.{number}.0.op.weight" in inner:
            levels.append([0, 0, 0])
        else:
            raise UserError(f"its UNet's block input_blocks.{number} is of no known form")
    return [tuple(level) for level in levels]


def detect_text(shapes: Shapes, known: TextConfig) -> TextConfig | None:
    """The text encoder at `known.prefix` at the size that the shapes tell; None when it is not there."""
    inner = {key.removeprefix(known.prefix): shape for key, shape in shapes.items() if key.startswith(known.prefix)}
    if known.layout == "open_clip":
        tokens, positions = inner.get("token_embedding.weight"), inner.get("positional_embedding")
        layers = _count(inner, r"transformer\.resblocks\.(\d+)\.")
        wide = inner.get("transformer.resblocks.0.mlp.c_fc.weight")
    else:
        tokens = inner.get("text_model.embeddings.token_embedding.weight")
        positions = inner.get("text_model.embeddings.position_embedding.weight")
        layers = _count(inner, r"text_model\.encoder\.layers\.(\d+)\.")
        wide = inner.get("text_model.encoder.layers.0.mlp.fc1.weight")
    if not tokens or not positions or not wide or not layers:
        return None
    projection = inner.get("text_projection") if known.projection else None
    hidden = known.hidden_index if known.hidden_index < 0 else layers - 1
    return replace(
        known, width=tokens[1], layers=layers, intermediate=wide[0], vocab_size=tokens[0], positions=positions[0],
        projection=projection[1] if projection else None, hidden_index=hidden,
    )


def detect_vae(shapes: Shapes) -> VAEConfig | None:
    """The autoencoder's architecture; None when it is not there."""
    inner = {key.removeprefix(VAE_PREFIX): shape for key, shape in shapes.items() if key.startswith(VAE_PREFIX)}
    first, last, mid = (inner.get(f"{name}.weight") for name in ("encoder.conv_in", "decoder.conv_out", "quant_conv"))
    if not first or not last or not mid:
        return None
    count = _count(inner, r"encoder\.down\.(\d+)\.")
    channels = [inner[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(count)]
    return VAEConfig(
        ch=first[0], ch_mult=tuple(width // first[0] for width in channels),
        num_res_blocks=_count(inner, r"encoder\.down\.0\.block\.(\d+)\."), z_channels=mid[0] // 2,
        in_channels=first[1], out_channels=last[0],
    )
