"""UNet: LDM/SGM keys and diffusers' UNet2DConditionModel, derived from the architecture.

LDM numbers its blocks in the order of the forward pass; diffusers groups them by level. `blocks` walks the
architecture once and names every block both ways.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib_sdtrain.model.family import UNetConfig
from lib_sdtrain.model.keys.table import Row, layer, layers, weight

PREFIX = "model.diffusion_model."
EMA_PREFIX = "model_ema."

_RESNET = (
    ("in_layers.0", "norm1"), ("in_layers.2", "conv1"), ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"), ("out_layers.3", "conv2"),
)


@dataclass(frozen=True)
class Block:
    """A resnet, a stack of transformer blocks or a change of size, at `ldm` in files and `diffusers` in the module."""

    kind: str  # "resnet", "attention", "downsample", "upsample"
    ldm: str
    diffusers: str
    shortcut: bool = False  # of a resnet whose input has another number of channels than its output
    depth: int = 0  # transformer blocks of an attention


def blocks(config: UNetConfig) -> list[Block]:
    """Every block of the UNet in the order of the forward pass."""
    middle = [
        Block("resnet", "middle_block.0", "mid_block.resnets.0"),
        Block("attention", "middle_block.1", "mid_block.attentions.0", depth=config.middle_depth),
        Block("resnet", "middle_block.2", "mid_block.resnets.1"),
    ]
    return [*_down_blocks(config), *middle, *_up_blocks(config)]


def _down_blocks(config: UNetConfig) -> Iterator[Block]:
    number = 1
    current = config.model_channels
    for level, channels in enumerate(config.channels):
        for index in range(config.num_res_blocks[level]):
            ldm, diffusers = f"input_blocks.{number}", f"down_blocks.{level}"
            yield Block("resnet", f"{ldm}.0", f"{diffusers}.resnets.{index}", shortcut=current != channels)
            if config.transformer_depth[level]:
                depth = config.transformer_depth[level]
                yield Block("attention", f"{ldm}.1", f"{diffusers}.attentions.{index}", depth=depth)
            current = channels
            number += 1
        if level < len(config.channels) - 1:
            yield Block("downsample", f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            number += 1


def _up_blocks(config: UNetConfig) -> Iterator[Block]:
    """The way up. A skip connection is concatenated to every resnet's input, so each has a shortcut."""
    number = 0
    for position, level in enumerate(reversed(range(len(config.channels)))):
        depth = config.transformer_depth[level]
        for index in range(config.num_res_blocks[level] + 1):
            ldm, diffusers = f"output_blocks.{number}", f"up_blocks.{position}"
            yield Block("resnet", f"{ldm}.0", f"{diffusers}.resnets.{index}", shortcut=True)
            if depth:
                yield Block("attention", f"{ldm}.1", f"{diffusers}.attentions.{index}", depth=depth)
            if level and index == config.num_res_blocks[level]:
                below = 2 if depth else 1
                yield Block("upsample", f"{ldm}.{below}.conv", f"{diffusers}.upsamplers.0.conv")
            number += 1


def unet_rows(config: UNetConfig, prefix: str = PREFIX) -> list[Row]:
    """The whole table; keys carry `prefix`."""
    rows = list(layers(f"{prefix}time_embed", "time_embedding", (("0", "linear_1"), ("2", "linear_2"))))
    if config.adm_in_channels is not None:
        rows += layers(f"{prefix}label_emb.0", "add_embedding", (("0", "linear_1"), ("2", "linear_2")))
    rows += layer(f"{prefix}input_blocks.0.0", "conv_in")
    for block in blocks(config):
        rows += _block_rows(block, f"{prefix}{block.ldm}")
    rows += layer(f"{prefix}out.0", "conv_norm_out")
    rows += layer(f"{prefix}out.2", "conv_out")
    return rows


def ema_key(key: str) -> str:
    """Where LDM keeps the moving average of a UNet's tensor: its name below `model.` without dots."""
    return EMA_PREFIX + key.removeprefix("model.").replace(".", "")


def _block_rows(block: Block, key: str) -> Iterator[Row]:
    if block.kind == "resnet":
        yield from layers(key, block.diffusers, _RESNET)
        if block.shortcut:
            yield from layer(f"{key}.skip_connection", f"{block.diffusers}.conv_shortcut")
    elif block.kind == "attention":
        yield from _attention_rows(block, key)
    else:
        yield from layer(key, block.diffusers)


def _attention_rows(block: Block, key: str) -> Iterator[Row]:
    """A spatial transformer; below its own name everything is called the same on both sides."""
    yield from layers(key, block.diffusers, (("norm", "norm"), ("proj_in", "proj_in")))
    for index in range(block.depth):
        inner, name = f"{key}.transformer_blocks.{index}", f"{block.diffusers}.transformer_blocks.{index}"
        for attention in ("attn1", "attn2"):
            for projection in ("to_q", "to_k", "to_v"):
                yield from weight(f"{inner}.{attention}.{projection}", f"{name}.{attention}.{projection}")
            yield from layer(f"{inner}.{attention}.to_out.0", f"{name}.{attention}.to_out.0")
        same = ("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")
        yield from layers(inner, name, [(part, part) for part in same])
    yield from layer(f"{key}.proj_out", f"{block.diffusers}.proj_out")
