"""LoRA (Hu et al. 2021): a change of low rank beside each chosen layer, the model itself stays as it is.

W x becomes W x + up(down(x)) * alpha / rank. Chosen are, as in kohya's scripts, the linear layers and 1x1 convolutions
of the UNet's transformers, and attention and MLP of the text encoder. Names are kohya's, which the WebUI reads.
"""
from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, part_rows

PREFIXES = {UNET: "lora_unet", TEXT_ENCODERS[0]: "lora_te"}
CHOSEN = {
    UNET: re.compile(r".*\battentions\.\d+\.(proj_in|proj_out|transformer_blocks\..*(to_[qkv]|to_out\.0|proj|net\.2))"),
    TEXT_ENCODERS[0]: re.compile(r".*\bencoder\.layers\.\d+\.(self_attn|mlp)\.\w+"),
}


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


def attach(part: str, module: nn.Module, rank: int, alpha: float, seed: int) -> nn.ModuleDict:
    """Put a LoRA of `rank` on every chosen layer of a model's part; kohya's name -> its `LoraLayer`."""
    generator = torch.Generator().manual_seed(seed)
    return nn.ModuleDict({
        f"{PREFIXES[part]}_{name.replace('.', '_')}": LoraLayer(layer, rank, alpha, generator)
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
