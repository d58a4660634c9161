"""LoRA (Hu et al. 2021): a change of low rank beside each chosen layer, the model itself stays as it is.

W x becomes W x + up(down(x)) * alpha / rank. Chosen are, as in kohya's scripts, the linear layers and 1x1 convolutions
of the UNet's transformers, and attention and MLP of the text encoders. Names are kohya's, which the WebUI reads:
diffusers' for SD1 and SD2, SGM's for SDXL's UNet.
"""
from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, part_rows
from lib_sdtrain.model.keys.unet import PREFIX as UNET_PREFIX
from lib_sdtrain.settings.run_method import MethodSettings

_TEXT = re.compile(r".*\bencoder\.layers\.\d+\.(self_attn|mlp)\.\w+")
CHOSEN = {
    UNET: re.compile(r".*\battentions\.\d+\.(proj_in|proj_out|transformer_blocks\..*(to_[qkv]|to_out\.0|proj|net\.2))"),
    TEXT_ENCODERS[0]: _TEXT,
    TEXT_ENCODERS[1]: _TEXT,
}


def lora_names(family: Family, part: str) -> dict[str, str]:
    """Module name of every layer of a part -> what LoRA files for `family` call it."""
    named = {}
    for row in part_rows(family)[part]:
        for name in row.names:
            if name.endswith(".weight"):
                known = row.key.removeprefix(UNET_PREFIX) if part == UNET and family.is_sdxl else name
                named[name.removesuffix(".weight")] = known.removesuffix(".weight").replace(".", "_")
    prefix = {UNET: "lora_unet", TEXT_ENCODERS[0]: "lora_te", TEXT_ENCODERS[1]: "lora_te2"}[part]
    if family.is_sdxl and part == TEXT_ENCODERS[0]:
        prefix = "lora_te1"
    return {name: f"{prefix}_{known}" for name, known in named.items()}


class LoraLayer(nn.Module):
    """The change beside one layer; `lora_up` starts at zero, so that at first nothing changes."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        if isinstance(base, nn.Linear):
            self.lora_down = nn.Linear(base.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, base.out_features, bias=False)
        else:
            self.lora_down = nn.Conv2d(base.in_channels, rank, 1, bias=False)
            self.lora_up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        self.scale = alpha / rank
        fan_in = self.lora_down.weight.shape[1]
        drawn = torch.rand(self.lora_down.weight.shape, generator=generator)
        with torch.no_grad():  # Kaiming's uniform distribution with a = sqrt(5), as torch and kohya begin
            self.lora_down.weight.copy_((2 * drawn - 1) / math.sqrt(fan_in))
            self.lora_up.weight.zero_()
        base.register_forward_hook(self._add)

    def _add(self, base: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        del base
        return output + self.lora_up(self.lora_down(inputs[0])) * self.scale


def attach(family: Family, part: str, module: nn.Module, method: MethodSettings, seed: int) -> nn.ModuleDict:
    """Put a LoRA on every chosen layer of a model's part; the name in files -> its `LoraLayer`."""
    generator = torch.Generator().manual_seed(seed)
    names = lora_names(family, part)
    return nn.ModuleDict({
        names[name]: LoraLayer(layer, method.rank, method.alpha, generator)
        for name, layer in module.named_modules()
        if CHOSEN[part].fullmatch(name) and isinstance(layer, (nn.Linear, nn.Conv2d))
    })


def count_weights(checkpoint: Checkpoint, part: str, rank: int) -> int:
    """How many numbers `attach` would train, told from the checkpoint's header."""
    total = 0
    for row in part_rows(checkpoint.family)[part]:
        for name in row.names:
            if CHOSEN[part].fullmatch(name.removesuffix(".weight")) and name.endswith(".weight"):
                rows, *columns = checkpoint.shape(row.key)
                total += rank * (rows // len(row.names) + math.prod(columns))
    return total
