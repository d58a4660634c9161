"""A file of diffusers' modules under their own names (`unet.`, `vae.`, `text_encoder.`), seen as a checkpoint.

Lightning writes such files for trainers built on diffusers, naifu-diffusion among them. The architecture is told by the
shapes alone.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.detection import first_shape, number_of
from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, Family, UNetConfig, VAEConfig
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, part_rows
from lib_sdtrain.model.pieces import PiecedTensors, pieces_of, plain_piece
from lib_sdtrain.model.tensorfile import TensorFile

Shapes = Mapping[str, tuple[int, ...]]
MODULE_UNET = f"{UNET}."
_VAE, _TEXT = f"{VAE}.", f"{TEXT_ENCODERS[0]}."
_POSITION_IDS = f"{_TEXT}text_model.embeddings.position_ids"  # 0 to 76, made anew by whoever loads the file


def is_module_file(shapes: Shapes) -> bool:
    """Whether the UNet stands there under diffusers' names."""
    return f"{MODULE_UNET}conv_in.weight" in shapes


def as_checkpoint(tensors: TensorFile) -> TensorFile:
    """The file under LDM's keys, whatever else is in it under its own.

    Raises `UserError` when a tensor is missing, or belongs to nothing that is known.
    """
    shapes = tensors.shapes()
    pieces = {}
    for part, rows in part_rows(_family(shapes)).items():
        if any(name.startswith(f"{part}.") for name in shapes):
            pieces |= pieces_of(f"{part}.", rows, tensors, tensors.path)
    placed = {name for piece in pieces.values() for name in piece.names} | {_POSITION_IDS}
    others = [name for name in shapes if name not in placed]
    strange = next((name for name in others if name.startswith((MODULE_UNET, _VAE, _TEXT))), None)
    if strange:
        raise UserError(f"the tensor {strange} belongs to no part of SD1 or SD2", where=str(tensors.path))
    return PiecedTensors(tensors, pieces | {name: plain_piece(name, name, tensors) for name in others})


def module_unet(shapes: Shapes) -> UNetConfig:
    """The UNet's architecture. Raises `UserError` when a part of it is missing."""
    inner = _below(MODULE_UNET, shapes)
    first, last = _need(inner, r"conv_in\.weight"), _need(inner, r"conv_out\.weight")
    levels = range(number_of(inner, r"down_blocks\.(\d+)\."))
    widths = [_need(inner, rf"down_blocks\.{level}\.resnets\.0\.conv1\.weight")[0] for level in levels]
    return UNetConfig(
        in_channels=first[1], out_channels=last[0], model_channels=first[0],
        channel_mult=tuple(width // first[0] for width in widths),
        num_res_blocks=tuple(number_of(inner, rf"down_blocks\.{level}\.resnets\.(\d+)\.") for level in levels),
        transformer_depth=tuple(
            number_of(inner, rf"down_blocks\.{level}\.attentions\.0\.transformer_blocks\.(\d+)\.") for level in levels
        ),
        middle_depth=number_of(inner, r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\."),
        context_dim=_need(inner, r".*\.attn2\.to_k\.weight")[1], heads=None,
        linear_projection=len(_need(inner, r".*\.proj_in\.weight")) == 2,
    )


def _family(shapes: Shapes) -> Family:
    """What the tables are made of; the family proper is told by the tensors under their LDM keys."""
    unet = module_unet(shapes)
    if f"{MODULE_UNET}add_embedding.linear_1.weight" in shapes:
        raise UserError("SDXL in a file of Lightning's is not supported", fix="give an SDXL checkpoint")
    known = PUBLISHED[SD2 if unet.linear_projection else SD1]
    text = replace(known.text[0], layers=number_of(_below(_TEXT, shapes), r"text_model\.encoder\.layers\.(\d+)\."))
    inner = _below(_VAE, shapes)
    return replace(known, unet=unet, text=(text,), vae=_vae(inner) if inner else known.vae)


def _vae(inner: Shapes) -> VAEConfig:
    ch = _need(inner, r"encoder\.conv_in\.weight")[0]
    levels = range(number_of(inner, r"encoder\.down_blocks\.(\d+)\."))
    widths = [_need(inner, rf"encoder\.down_blocks\.{level}\.resnets\.0\.conv2\.weight")[0] for level in levels]
    return VAEConfig(
        ch=ch, ch_mult=tuple(width // ch for width in widths),
        num_res_blocks=number_of(inner, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
    )


def _below(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _need(inner: Shapes, pattern: str) -> tuple[int, ...]:
    """Shape of the first matrix or kernel of that name."""
    shape = first_shape(inner, pattern)
    if shape is None or len(shape) < 2 or 0 in shape:
        raise UserError(f"its modules are incomplete: {re.sub(r'[^a-z0-9_.]', '', pattern)} is missing")
    return shape
