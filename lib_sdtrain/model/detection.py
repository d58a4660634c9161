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
    V_MARKER,
    V_PREDICTION,
    ZERO_SNR_MARKER,
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
    _refuse_relatives(shapes, unet)
    name = _family_name(shapes, unet)
    known = PUBLISHED[name]
    text = tuple(detect_text(shapes, config) or config for config in known.text)
    family = replace(known, unet=unet, text=text, vae=detect_vae(shapes) or known.vae)
    family = with_published_heads(family)
    if V_MARKER in shapes:
        family = family.with_prediction_type(V_PREDICTION)
    elif name == SD2 and unet.in_channels == known.unet.in_channels:
        family = replace(family, prediction_guessed=True)
    if ZERO_SNR_MARKER in shapes:
        family = replace(family, schedule=NoiseSchedule(zero_terminal_snr=True))
    return family


def with_published_heads(family: Family) -> Family:
    """The published number of attention heads, where the UNet is of the published size (inpainting forms too)."""
    known = PUBLISHED[family.name].unet
    if replace(family.unet, in_channels=known.in_channels) != replace(known, heads=None):
        return family
    return replace(family, unet=replace(family.unet, heads=known.heads))


# Relatives of Stable Diffusion whose UNet or conditioning is of another kind, by a key that only they have.
_RELATIVES = (
    (r"depth_model\.", "a depth-to-image model"),
    (r"embedder\.model\.", "an unCLIP model"),
    (r"cond_stage_model\.roberta\.", "AltDiffusion"),
    (r"low_scale_model\.", "an upscaling model"),
)
_REFINER_TEXT = "conditioner.embedders.0.model.ln_final.weight"


def _refuse_relatives(shapes: Shapes, unet: UNetConfig) -> None:
    """Raise `UserError` naming the model, if it is one that looks like Stable Diffusion but is built otherwise."""
    relative = next((name for pattern, name in _RELATIVES if first_shape(shapes, f"{pattern}.*")), None)
    if relative is None and unet.adm_in_channels is not None:
        if _REFINER_TEXT in shapes and not any(key.startswith("conditioner.embedders.1.model.") for key in shapes):
            relative = "SDXL's refiner"
        elif unet.middle_depth == 0:
            relative = "SSD-1B or another pruned SDXL"
    if relative is None and unet.in_channels not in (4, 8, 9):
        relative = f"a model with {unet.in_channels} input channels"
    if relative:
        raise UserError(f"this is {relative}", fix="only SD1, SD2 and SDXL are supported, and their inpainting forms")


def _family_name(shapes: Shapes, unet: UNetConfig) -> str:
    if any(key.startswith("conditioner.embedders.") for key in shapes) or unet.adm_in_channels is not None:
        return SDXL
    if any(key.startswith("cond_stage_model.model.") for key in shapes) or unet.linear_projection:
        return SD2
    return SD1


def first_shape(shapes: Shapes, pattern: str) -> tuple[int, ...] | None:
    """Shape of the first tensor whose whole name the pattern matches."""
    matches = re.compile(pattern).fullmatch
    return next((shape for key, shape in shapes.items() if matches(key)), None)


def number_of(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the pattern's group captures; 0 when nothing matches.

    No more than there are tensors and one: whoever looks for so many then finds that one is missing.
    """
    begins = re.compile(pattern).match
    largest = max((int(found[1]) + 1 for key in shapes if (found := begins(key))), default=0)
    return min(largest, len(shapes) + 1)


def detect_unet(shapes: Shapes) -> UNetConfig:
    """The UNet's architecture; `heads` is None. Raises `UserError` when the blocks are of no known form."""
    inner = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    first = inner.get("input_blocks.0.0.weight")
    last = inner.get("out.2.weight")
    if first is None or last is None or len(first) != 4:
        raise UserError("it holds no UNet of Stable Diffusion", fix="give a whole SD1, SD2 or SDXL checkpoint")
    levels = _walk_levels(inner, first[0])
    context = first_shape(inner, r"(input|output|middle)_blocks?\..*\.attn2\.to_k\.weight")
    if context is None:
        raise UserError("its UNet has no cross-attention", fix="give a text-to-image checkpoint: SD1, SD2 or SDXL")
    projection = first_shape(inner, r".*\.proj_in\.weight")
    label = inner.get("label_emb.0.0.weight")
    return UNetConfig(
        in_channels=first[1], out_channels=last[0], model_channels=first[0],
        channel_mult=tuple(channels // first[0] for channels, _, _ in levels),
        num_res_blocks=tuple(count for _, count, _ in levels),
        transformer_depth=tuple(depth for _, _, depth in levels),
        middle_depth=number_of(inner, r"middle_block\.1\.transformer_blocks\.(\d+)\."),
        context_dim=context[1], heads=None,
        linear_projection=projection is not None and len(projection) == 2,
        adm_in_channels=label[1] if label else None,
    )


def _walk_levels(inner: Shapes, model_channels: int) -> list[tuple[int, int, int]]:
    """(channels, residual blocks, transformer depth) of each level, in the order of the forward pass."""
    levels: list[list[tuple[int, int]]] = [[]]
    for number in range(1, number_of(inner, r"input_blocks\.(\d+)\.")):
        out = inner.get(f"input_blocks.{number}.0.out_layers.3.weight")
        if out is not None:
            depth = number_of(inner, rf"input_blocks\.{number}\.1\.transformer_blocks\.(\d+)\.")
            levels[-1].append((out[0], depth))
        elif f"input_blocks.{number}.0.op.weight" in inner:
            levels.append([])
        else:
            raise UserError(f"its UNet's block input_blocks.{number} is of no known form")
    for level in levels:
        if len(set(level)) != 1 or level[0][0] % model_channels:
            raise UserError(f"its UNet's blocks do not form levels: (channels, depth) {level}")
    return [(level[0][0], len(level), level[0][1]) for level in levels]


def detect_text(shapes: Shapes, known: TextConfig) -> TextConfig | None:
    """The text encoder at `known.prefix` at the size that the shapes tell; None when it is not there."""
    inner = {key.removeprefix(known.prefix): shape for key, shape in shapes.items() if key.startswith(known.prefix)}
    if known.layout == "open_clip":
        tokens, positions = inner.get("token_embedding.weight"), inner.get("positional_embedding")
        layers = number_of(inner, r"transformer\.resblocks\.(\d+)\.")
        wide = inner.get("transformer.resblocks.0.mlp.c_fc.weight")
    else:
        tokens = inner.get("text_model.embeddings.token_embedding.weight")
        positions = inner.get("text_model.embeddings.position_embedding.weight")
        layers = number_of(inner, r"text_model\.encoder\.layers\.(\d+)\.")
        wide = inner.get("text_model.encoder.layers.0.mlp.fc1.weight")
    if not tokens or not positions or not wide or not layers:
        return None
    projection = inner.get("text_projection") if known.projection else None
    return replace(
        known, width=tokens[1], layers=layers, intermediate=wide[0], vocab_size=tokens[0], positions=positions[0],
        projection=projection[1] if projection else known.projection,
        hidden_index=_hidden_index(known, layers),
    )


def _hidden_index(known: TextConfig, layers: int) -> int:
    """The penultimate layer counts even where a converter dropped the last one, which nothing needs (SD2)."""
    if known.hidden_index == -2 and known.projection is None and layers == known.layers - 1:
        return -1
    return known.hidden_index if known.hidden_index < 0 else min(known.hidden_index, layers - 1)


def detect_vae(shapes: Shapes) -> VAEConfig | None:
    """The autoencoder's architecture; None when it is not there."""
    inner = {key.removeprefix(VAE_PREFIX): shape for key, shape in shapes.items() if key.startswith(VAE_PREFIX)}
    first, last, mid = (inner.get(f"{name}.weight") for name in ("encoder.conv_in", "decoder.conv_out", "quant_conv"))
    if not first or not last or not mid:
        return None
    count = number_of(inner, r"encoder\.down\.(\d+)\.")
    widths = [inner.get(f"encoder.down.{level}.block.0.conv2.weight") for level in range(count)]
    if not all(widths) or any(width[0] % first[0] for width in widths):
        raise UserError("its VAE's encoder is of no known form")
    return VAEConfig(
        ch=first[0], ch_mult=tuple(width[0] // first[0] for width in widths),
        num_res_blocks=number_of(inner, r"encoder\.down\.0\.block\.(\d+)\."), z_channels=mid[0] // 2,
        in_channels=first[1], out_channels=last[0],
    )
