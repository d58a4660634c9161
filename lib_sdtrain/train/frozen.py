"""Weights that are only multiplied with, in the precision in which they are: half the memory, the same numbers."""
from __future__ import annotations

import torch
from torch import nn

from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import FULL


def narrows(settings: RunSettings) -> bool:
    """Whether a run keeps its UNet in 16 bits: it is frozen, and computed with in them."""
    return settings.method.kind != FULL and settings.train.mixed_precision != "no"


def autocast(device: str, half: torch.dtype) -> torch.autocast:
    """Products in `half`. Each weight is used once a pass: kept in 16 bits besides (torch's cache) it would only take
    memory.
    """
    return torch.autocast(device, half, cache_enabled=False)


def narrow(module: nn.Module, device: str, half: torch.dtype) -> None:
    """Keep the frozen linear layers and convolutions of a module in 16 bits: `torch.autocast` narrows them anyway.

    Norms stay in 32 bits. From now on the module computes under autocast wherever it is called.
    """
    for layer in module.modules():
        multiplies = isinstance(layer, (nn.Linear, nn.Conv2d))
        if multiplies and not any(weight.requires_grad for weight in layer.parameters()):
            layer.to(half)
    module.forward = autocast(device, half)(module.forward)
