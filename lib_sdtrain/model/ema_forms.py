"""Moving averages (EMA) of the UNet as other programs keep them, seen under LDM's keys (`model_ema.*`).

naifu-diffusion lays torch_ema's state beside Lightning's state dict: `model_ema` (`ema` in its first days) with decay,
num_updates and shadow_params, a list without names in the order of the UNet's parameters. scal-sdt puts `unet_ema` with
decay, num_updates and a state_dict of diffusers' names among the weights.
"""
from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.detection import detect_unet
from lib_sdtrain.model.keys import Row, ema_key, unet_rows
from lib_sdtrain.model.module_file import MODULE_UNET, is_module_file, module_unet
from lib_sdtrain.model.parts import EMA_COUNTERS, EMA_PREFIX
from lib_sdtrain.model.pieces import Piece, PiecedTensors, plain_piece
from lib_sdtrain.model.tensorfile import TensorFile

_LISTED = re.compile(r"(model_ema|ema)\.shadow_params\.(\d+)")
_NAMED = re.compile(r"(unet_ema)\.state_dict\.(.+)")
_FIX = "the file is damaged, or of another program: leave the average out of it to use the weights alone"
_MOST_UPDATES = 2**31

# The order in which the modules below one another are registered, and so that of `parameters()`. UNet2DConditionModel
# registers its middle after the way up, every block its attentions before its resnets. diffusers up to 0.14:
_UNTIL_0_14 = (
    "conv_in", "time_embedding", "add_embedding", "down_blocks", "up_blocks", "mid_block", "conv_norm_out", "conv_out",
    "attentions", "resnets", "downsamplers", "upsamplers", "norm", "proj_in", "transformer_blocks", "proj_out",
    "attn1", "ff", "attn2", "norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut", "norm3",
    "to_q", "to_k", "to_v", "to_out", "net", "conv", "proj", "linear_1", "linear_2", "weight", "bias",
)  # fmt: skip
_BLOCK_SINCE_0_15 = ("norm1", "attn1", "norm2", "attn2", "norm3", "ff")


def _since_0_15() -> tuple[str, ...]:
    """0.15 put each norm of a transformer block before what it norms; the rest stayed."""
    others = [name for name in _UNTIL_0_14 if name not in _BLOCK_SINCE_0_15]
    of_resnets = ("norm1", "attn1", "conv1", "time_emb_proj", "norm2", "attn2", "conv2", "conv_shortcut", "norm3", "ff")
    return (*of_resnets, *(name for name in others if name not in of_resnets))


ORDERS = (_UNTIL_0_14, _since_0_15())
"""Ranks of the words in parameters' names, one tuple an order that diffusers had."""


def in_order(rows: list[Row], order: tuple[str, ...]) -> list[Row]:
    """The UNet's rows as its parameters follow one another where modules are registered by `order`."""
    ranks = {word: rank for rank, word in enumerate(order)}
    return sorted(
        rows, key=lambda row: [int(word) if word.isdigit() else ranks[word] for word in row.names[0].split(".")]
    )


def with_average(tensors: TensorFile) -> TensorFile:
    """The file with its average under LDM's keys; the file itself where it has none, or has it so already.

    Raises `UserError` when the average does not fit the UNet.
    """
    found = [
        (match, name) for name in (*tensors.keys(), *tensors.extra_keys())
        if (match := _LISTED.fullmatch(name) or _NAMED.fullmatch(name))
    ]
    if not found:
        return tensors
    holder = found[0][0][1]
    values = {match[2]: name for match, name in found if match[1] == holder}
    rows, weights = _unet(tensors)
    shapes = {row.names[0]: tensors.shape(weights[row.names[0]]) for row in rows}
    names = _by_name(values, shapes) if holder == "unet_ema" else _by_place(values, rows, shapes, tensors)
    pieces = {key: plain_piece(key, key, tensors) for key in tensors.keys() if not key.startswith(f"{holder}.")}  # noqa: SIM118
    for row in rows:
        name = names[row.names[0]]
        _check_shape(name, tensors.shape(name), shapes[row.names[0]])
        pieces[ema_key(row.key)] = Piece(row, (name,), tensors.dtype(name), shapes[row.names[0]])
    seen = PiecedTensors(tensors, pieces, _counters(tensors, holder))
    same = all(_is_view(tensors, names[name], weight) for name, weight in weights.items())
    more = "; it is the weights once more, which the program saved twice" if same else ""
    seen.notes.append(f"its moving average is read from {holder}{more}")
    return seen


def _unet(tensors: TensorFile) -> tuple[list[Row], dict[str, str]]:
    """The UNet's table, and diffusers' name -> name in the file of each of its weights."""
    shapes = tensors.shapes()
    if is_module_file(shapes):
        rows = unet_rows(module_unet(shapes))
        names = {row.names[0]: MODULE_UNET + row.names[0] for row in rows}
    else:
        rows = unet_rows(detect_unet(shapes))
        names = {row.names[0]: row.key for row in rows}
    missing = next((name for name in names.values() if name not in tensors), None)
    if missing:
        raise UserError(f"the tensor {missing} is missing", fix="copy or download the file again")
    return rows, names


def _by_name(values: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    missing = next((name for name in shapes if name not in values), None)
    if missing:
        raise UserError(f"its moving average (unet_ema) has no {missing}", fix=_FIX)
    return {name: values[name] for name in shapes}


def _by_place(
    values: Mapping[str, str], rows: list[Row], shapes: Mapping[str, tuple[int, ...]], tensors: TensorFile
) -> dict[str, str]:
    """Parameter -> name in the file of the list's tensor. Of the orders that diffusers had, shapes tell which it is."""
    listed = [values[place] for place in sorted(values, key=int)]
    if len(listed) != len(rows) or any(str(place) not in values for place in range(len(rows))):
        raise UserError(
            f"its moving average (shadow_params) holds {len(listed)} tensors, its UNet has {len(rows)}", fix=_FIX
        )
    for order in ORDERS:
        names = [row.names[0] for row in in_order(rows, order)]
        if all(_same(tensors.shape(own), shapes[name]) for own, name in zip(listed, names, strict=True)):
            return dict(zip(names, listed, strict=True))
    raise UserError("the tensors of its moving average (shadow_params) have other shapes than its UNet's", fix=_FIX)


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if not _same(found, wanted):
        raise UserError(f"{name} of its moving average is {found}, the weight is {wanted}", fix=_FIX)


def _same(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the shapes are equal but for trailing ones: SD1's projections are 1x1 convolutions or matrices."""
    longest = max(len(one), len(other))
    return one + (1,) * (longest - len(one)) == other + (1,) * (longest - len(other))


def _counters(tensors: TensorFile, holder: str) -> dict[str, torch.Tensor]:
    decay, updates = (_number(tensors, f"{holder}.{key.removeprefix(EMA_PREFIX)}") for key in EMA_COUNTERS)
    if (decay is not None and not 0 <= decay <= 1) or (updates is not None and not 0 <= updates < _MOST_UPDATES):
        raise UserError(f"its moving average ({holder}) says decay {decay}, num_updates {updates}", fix=_FIX)
    kept = zip(EMA_COUNTERS, (decay, updates), (torch.float32, torch.int32), strict=True)
    return {key: torch.tensor(value, dtype=dtype) for key, value, dtype in kept if value is not None}


def _number(tensors: TensorFile, name: str) -> float | None:
    """A number of the file, kept plainly or as a tensor."""
    if name not in tensors and name not in tensors.extra_keys():
        return tensors.numbers.get(name)
    held = tensors.tensor(name)
    return held.item() if held.numel() == 1 else None


def _is_view(tensors: TensorFile, one: str, other: str) -> bool:
    return tensors.tensor(one).data_ptr() == tensors.tensor(other).data_ptr()
