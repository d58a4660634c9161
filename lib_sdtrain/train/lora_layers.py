"""LoRA (Hu et al. 2021): a change of low rank beside each chosen layer, the model itself stays as it is.

W x becomes W x + up(down(x)) * alpha / rank; beside a convolution, down is one of the same kernel and up is 1x1.
Which layers are chosen, and what they are called, is in `lora_choice.py`.
"""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.settings.run_method import MethodSettings
from lib_sdtrain.train.lora_choice import Choice, chosen_layers, chosen_names


class LoraLayer(nn.Module):
    """The change beside one layer; `lora_up` starts at zero, so that at first nothing changes.

    `rate` is how many times the learning rate counts for it.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, choice: Choice, generator: torch.Generator) -> None:
        super().__init__()
        rank, self.alpha, self.rate = choice.rank, choice.alpha, choice.rate
        if isinstance(base, nn.Linear):
            self.lora_down = nn.Linear(base.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, base.out_features, bias=False)
        else:
            self.lora_down = nn.Conv2d(
                base.in_channels, rank, base.kernel_size, base.stride, base.padding, bias=False
            )
            self.lora_up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        self.scale = choice.alpha / rank
        fan_in = self.lora_down.weight[0].numel()
        drawn = torch.rand(self.lora_down.weight.shape, generator=generator)
        with torch.no_grad():  # Kaiming's uniform distribution with a = sqrt(5), as torch and kohya begin
            self.lora_down.weight.copy_((2 * drawn - 1) / math.sqrt(fan_in))
            self.lora_up.weight.zero_()
        base.register_forward_hook(self._add)

    def _add(self, base: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        del base
        if self.scale == 1:
            return output + self.lora_up(self.lora_down(inputs[0]))
        return output + self.lora_up(self.lora_down(inputs[0])) * self.scale


def attach(family: Family, part: str, module: nn.Module, method: MethodSettings, seed: int) -> nn.ModuleDict:
    """Put a LoRA on every chosen layer of a model's part; the name in files -> its `LoraLayer`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = chosen_layers(family, part, method)
    return nn.ModuleDict({
        chosen[name].name: LoraLayer(layer, chosen[name], generator)
        for name, layer in module.named_modules() if name in chosen
    })


def count_weights(checkpoint: Checkpoint, part: str, method: MethodSettings) -> int:
    """How many numbers `attach` would train, told from the checkpoint's header."""
    total, chosen = 0, chosen_layers(checkpoint.family, part, method)
    for row in part_rows(checkpoint.family)[part]:
        for _index, choice in chosen_names(row, chosen):
            rows, *columns = checkpoint.shape(row.key)
            total += choice.rank * (rows // len(row.names) + math.prod(columns))
    return total
