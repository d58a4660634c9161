"""AdamW whose two moments take one byte each: a quarter of AdamW's memory, nothing to install."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.train.optimizers.quantized import BLOCK, dequantise, quantise

SMALLEST = 4096
"""Tensors of fewer values (norms, biases) keep their moments in full, as bitsandbytes does."""
PIECE = BLOCK * 4096
"""Values that are worked on at a time, so that little more than the bytes is ever in memory."""


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) with moments in blockwise 8-bit form (Dettmers et al. 2022)."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; `closure`, if given, is called first and its loss returned."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(_fresh(parameter))
        state["step"] += 1
        weights, gradient = parameter.view(-1), parameter.grad.reshape(-1).float()
        for start in range(0, len(weights), PIECE):
            part = slice(start, start + PIECE)
            moments = [_read(state, name, part) for name in ("exp_avg", "exp_avg_sq")]
            _step(weights[part], gradient[part], (moments[0], moments[1]), group, float(state["step"]))
            for name, value in zip(("exp_avg", "exp_avg_sq"), moments, strict=True):
                _write(state, name, part, value)


def _fresh(parameter: Tensor) -> dict[str, Tensor]:
    state = {"step": torch.tensor(0.0)}
    count, device = parameter.numel(), parameter.device
    for name in ("exp_avg", "exp_avg_sq"):
        if count < SMALLEST:
            state[name] = torch.zeros(count, device=device)
        else:
            codes, scales = quantise(torch.zeros(BLOCK, device=device), signed=name == "exp_avg")
            state[f"{name}_codes"] = codes[:1].repeat(count)
            state[f"{name}_scales"] = scales[:1].repeat(-(-count // BLOCK))
    return state


def _read(state: dict[str, Tensor], name: str, part: slice) -> Tensor:
    if name in state:
        return state[name][part].clone()
    scales = state[f"{name}_scales"][part.start // BLOCK : -(-part.stop // BLOCK)]
    return dequantise(state[f"{name}_codes"][part], scales, signed=name == "exp_avg")


def _write(state: dict[str, Tensor], name: str, part: slice, value: Tensor) -> None:
    if name in state:
        state[name][part] = value
        return
    codes, scales = quantise(value, signed=name == "exp_avg")
    state[f"{name}_codes"][part] = codes
    state[f"{name}_scales"][part.start // BLOCK : part.start // BLOCK + len(scales)] = scales


def _step(
    weights: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], group: dict[str, Any], step: float
) -> None:
    (first, second), (beta1, beta2) = moments, group["betas"]
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    weights.mul_(1 - group["lr"] * group["weight_decay"])
    root = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    weights.addcdiv_(first, root, value=-group["lr"] / (1 - beta1**step))
