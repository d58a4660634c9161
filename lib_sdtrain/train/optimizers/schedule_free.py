"""Schedule-free AdamW: needs no schedule, because what it gives is an average over the whole run."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024, "The Road Less Scheduled").

    Gradients are taken at y = (1 - b1) z + b1 x, which the parameters hold; z goes by AdamW's steps without momentum,
    x is the average of z with weights lr^2. x is the model that is meant (`averages`).
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not betas[0] > 0:
            raise ValueError("the first of betas must be over 0: without it there is no average")
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "steps": 0, "weight_sum": 0.0,
            "largest_lr": 0.0,
        })

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; `closure`, if given, is called first and its loss returned."""
        loss = closure() if closure else None
        for group in self.param_groups:
            group["steps"] += 1
            group["largest_lr"] = max(group["largest_lr"], group["lr"])
            weight = group["largest_lr"] ** 2
            group["weight_sum"] += weight
            share = weight / group["weight_sum"] if group["weight_sum"] else 0.0
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, share)
        return loss

    def _update(self, y: Tensor, group: dict[str, Any], share: float) -> None:
        state = self.state[y]
        if not state:
            state |= {"z": y.detach().clone(), "exp_avg_sq": torch.zeros_like(y)}
        (beta1, beta2), z, second = group["betas"], state["z"], state["exp_avg_sq"]
        second.mul_(beta2).addcmul_(y.grad, y.grad, value=1 - beta2)
        bottom = (second / (1 - beta2 ** group["steps"])).sqrt_().add_(group["eps"])
        update = (y.grad / bottom).add_(y, alpha=group["weight_decay"])
        # x' = (1 - c) x + c z' and y' = (1 - b1) z' + b1 x', with x eliminated
        y.lerp_(z, share).add_(update, alpha=group["lr"] * (beta1 * (1 - share) - 1))
        z.sub_(update, alpha=group["lr"])

    @torch.no_grad()
    def averages(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter and x, the value that is meant for it."""
        for group in self.param_groups:
            for y in group["params"]:
                z = self.state[y].get("z")
                yield y, y if z is None else y.lerp(z.to(y.device), 1 - 1 / group["betas"][0])
