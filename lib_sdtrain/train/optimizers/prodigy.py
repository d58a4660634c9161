"""Prodigy: AdamW that finds its learning rate itself."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


class Prodigy(torch.optim.Optimizer):
    """Prodigy in its Adam form (Mishchenko & Defazio 2023, algorithm 4) with decoupled weight decay.

    d, the estimated distance to the solution, multiplies the learning rate, which is 1 or near it. With b3 = sqrt(b2):
    r <- b3 r + (1 - b3) lr d^2 <g, x0 - x>; s <- b3 s + (1 - b3) lr d^2 g; d <- max(d, d_coef r / |s|_1). One d for all
    groups; a group's own rate counts as a multiple of it. `growth_rate` limits how fast d grows.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, *, d0: float = 1e-6, d_coef: float = 1.0, growth_rate: float = math.inf,
        use_bias_correction: bool = False,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "d0": d0, "d_coef": d_coef,
            "growth_rate": growth_rate, "use_bias_correction": use_bias_correction, "d": d0, "r": 0.0, "steps": 0,
        })

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; `closure`, if given, is called first and its loss returned."""
        loss = closure() if closure else None
        first = self.param_groups[0]
        d, root = first["d"], math.sqrt(first["betas"][1])
        estimate, size = first["r"] * root, 0.0
        for group, parameter in self._trained():
            state = self.state[parameter]
            if not state:
                state["x0"] = parameter.detach().clone()
                state |= {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq", "s")}
            gradient, share = parameter.grad, (1 - root) * _rate(group) * d**2
            estimate += share * float((gradient * (state["x0"] - parameter)).sum())
            state["s"].mul_(root).add_(gradient, alpha=share)
            size += float(state["s"].abs().sum())
            beta1, beta2 = group["betas"]
            state["exp_avg"].mul_(beta1).add_(gradient, alpha=(1 - beta1) * d)
            state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=(1 - beta2) * d**2)
        for group, parameter in self._trained():
            state = self.state[parameter]
            parameter.mul_(1 - d * _rate(group) * group["weight_decay"])
            bottom = state["exp_avg_sq"].sqrt().add_(d * group["eps"])
            parameter.addcdiv_(state["exp_avg"], bottom, value=-d * _rate(group))
        self._remember(d, estimate, size)
        return loss

    def _trained(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            yield from ((group, parameter) for parameter in group["params"] if parameter.grad is not None)

    def _remember(self, d: float, estimate: float, size: float) -> None:
        first = self.param_groups[0]
        if size > 0:
            d = min(max(d, first["d_coef"] * estimate / size), d * first["growth_rate"])
        for group in self.param_groups:
            group |= {"d": d, "r": estimate, "steps": group["steps"] + 1}


def _rate(group: dict[str, Any]) -> float:
    """The learning rate, with Adam's correction of the moments' bias where asked for."""
    if not group["use_bias_correction"]:
        return group["lr"]
    beta1, beta2 = group["betas"]
    step = group["steps"] + 1
    return group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
