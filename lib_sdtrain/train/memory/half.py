"""Mixed precision as `torch.autocast` has it on CUDA, for modules on the meta device, which autocast does not know."""
from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

HALF = torch.bfloat16


class HalfPrecision:
    """Has the products of `modules` computed in 16 bits and their norms in 32. Every use of a weight narrows it anew.

    `texts` are those of them whose products are widened again: 77 tokens are few.
    """

    def __init__(self, modules: Iterable[nn.Module], texts: Iterable[nn.Module]) -> None:
        self._texts = {layer for module in texts for layer in module.modules()}
        for layer in (layer for module in modules for layer in module.modules()):
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.forward = partial(self._linear if isinstance(layer, nn.Linear) else self._conv, layer)
                if layer not in self._texts and not any(weight.requires_grad for weight in layer.parameters()):
                    layer.to(HALF)  # see frozen.py
            elif isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
                layer.forward = partial(_widened, layer.forward)

    def _linear(self, layer: nn.Linear, value: Tensor, *_others: object) -> Tensor:
        made = functional.linear(value.to(HALF), *_narrowed(layer))
        return made.float() if layer in self._texts else made  # their attention multiplies what is not narrowed here

    def _conv(self, layer: nn.Conv2d, value: Tensor, *_others: object) -> Tensor:
        return layer._conv_forward(value.to(HALF), *_narrowed(layer))


def _narrowed(layer: nn.Linear | nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    return layer.weight.to(HALF), None if layer.bias is None else layer.bias.to(HALF)


def _widened(forward: partial[Tensor], value: Tensor, *_others: object) -> Tensor:
    return forward(value.float())
