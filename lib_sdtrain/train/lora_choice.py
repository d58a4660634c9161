"""Which layers a LoRA is put on, with which rank and rate, and what files call them.

As in kohya's scripts: the linear layers and 1x1 convolutions of the UNet's transformers, attention and MLP of the text
encoders; with a rank for convolutions (LoCon) the layers of its resnets and changes of size too, of which kernels
larger than one pixel have that rank. Names are kohya's, which the WebUI reads: diffusers' for SD1 and SD2, SGM's for
SDXL's UNet.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.merge.blocks import KEEP, LAYOUTS, block_of
from lib_sdtrain.merge.presets import bundled_presets
from lib_sdtrain.merge.weights import BlockWeights, read_weights
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, Row, part_rows
from lib_sdtrain.model.keys.unet import PREFIX as UNET_PREFIX
from lib_sdtrain.settings.run_method import LORA, MethodSettings

WHERE = "method.block_weights"
_BLOCKS = {
    UNET: "a block with transformers (with method.conv_rank: or resnets)", **dict.fromkeys(TEXT_ENCODERS, "BASE"),
}
_WEIGHT = ".weight"
_LINEAR = re.compile(r".*\battentions\.\d+\.(proj_in|proj_out|transformer_blocks\..*(to_[qkv]|to_out\.0|proj|net\.2))")
_TEXT = re.compile(r".*\bencoder\.layers\.\d+\.(self_attn|mlp)\.\w+")
_RESNET = re.compile(r".*\bresnets\.\d+\.(time_emb_proj|conv_shortcut)")
_KERNEL = re.compile(r".*\b(resnets\.\d+\.conv[12]|(down|up)samplers\.0\.conv)")


@dataclass(frozen=True)
class Choice:
    """A LoRA layer to be: its name in files, rank and alpha, and what its learning rate is multiplied by."""

    name: str
    rank: int
    alpha: float
    rate: float = 1.0


@lru_cache(maxsize=64)
def chosen_layers(family: Family, part: str, method: MethodSettings) -> Mapping[str, Choice]:
    """Module name of every chosen layer of a part -> its `Choice`. Blocks of weight 0 are left out."""
    weights = block_weights(method.block_weights, family)
    found = {}
    for row in part_rows(family)[part]:
        block = block_of(row.key, LAYOUTS[family.name])
        rate = 1.0 if weights is None or block == KEEP else weights[block]
        for name in row.names:
            module = name.removesuffix(_WEIGHT)
            size = _size(part, module, method) if name.endswith(_WEIGHT) and rate else None
            if size:
                found[module] = Choice(_file_name(family, part, module, row.key), *size, rate)
    return found


def chosen_names(row: Row, chosen: Mapping[str, Choice]) -> Iterator[tuple[int, Choice]]:
    """(which of the row's names, its `Choice`) for each weight of a file's row that is chosen."""
    for index, name in enumerate(row.names):
        if name.endswith(_WEIGHT) and (choice := chosen.get(name.removesuffix(_WEIGHT))):
            yield index, choice


def _size(part: str, module: str, method: MethodSettings) -> tuple[int, float] | None:
    """(rank, alpha) of a layer, None where it is not chosen."""
    plain = method.rank, method.alpha
    if part != UNET:
        return plain if _TEXT.fullmatch(module) else None
    if _LINEAR.fullmatch(module):
        return plain
    if method.conv_rank is None:
        return None
    if _KERNEL.fullmatch(module):
        return method.conv_rank, method.conv_rank if method.conv_alpha is None else method.conv_alpha
    return plain if _RESNET.fullmatch(module) else None


def _file_name(family: Family, part: str, module: str, key: str) -> str:
    if part == UNET and family.is_sdxl:
        module = key.removeprefix(UNET_PREFIX).removesuffix(_WEIGHT)
    prefix = {UNET: "lora_unet", TEXT_ENCODERS[0]: "lora_te", TEXT_ENCODERS[1]: "lora_te2"}[part]
    if family.is_sdxl and part == TEXT_ENCODERS[0]:
        prefix = "lora_te1"
    return f"{prefix}_{module.replace('.', '_')}"


def check_layers(family: Family, method: MethodSettings, problems: Problems) -> None:
    """Add what is wrong with the block weights, and each part of a LoRA that is to be trained and has no layer left."""
    try:
        weights = block_weights(method.block_weights, family)
    except UserError as error:
        problems.absorb(error)
        return
    parts = [part for part in (UNET, *TEXT_ENCODERS) if part in part_rows(family) and method.trains(part)]
    if weights is None or method.kind != LORA:
        return
    empty = [part for part in parts if not chosen_layers(family, part, method)]
    if empty and empty == parts:
        blocks = " or ".join(dict.fromkeys(_BLOCKS[part] for part in parts))
        problems.add("these weights leave no layer to train", where=WHERE, fix=f"give {blocks} a weight over 0")
        return
    for part in empty:
        problems.add(
            f"{WHERE} leave no layer of it to train", where=f"method.train_{part}",
            fix=f"set it to false, or give {_BLOCKS[part]} a weight over 0",
        )


def block_weights(text: str, family: Family) -> BlockWeights | None:
    """The merger's weights that `text` stands for, in the family's layout; None for an empty one.

    Raises `UserError` when they are no 26 or 20 numbers from 0, and no preset's name.
    """
    if not text.strip():
        return None
    weights = read_weights(text, bundled_presets(), WHERE).to(LAYOUTS[family.name])
    if any(value < 0 for value in weights.values) or not any(weights.values):
        raise UserError("the weights must be 0 or more, and one of them over 0", where=WHERE)
    return weights
