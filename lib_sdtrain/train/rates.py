"""Learning-rate schedules, as factors of the base rate. Formulas of diffusers' `get_scheduler`."""
from __future__ import annotations

import math


def rate_factor(kind: str, step: int, total: int, warmup: int) -> float:
    """The factor at optimiser step `step` (0 for the first) of `total`, after `warmup` linear steps from 0."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    if kind == "linear":
        return max(0.0, 1.0 - progress)
    if kind == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return 1.0


class SmoothedLoss:
    """Exponential moving average with bias correction (Adam's), so that the first values count fully."""

    def __init__(self, beta: float = 0.98) -> None:
        self.beta, self.total, self.weight = beta, 0.0, 0.0

    def update(self, loss: float) -> float:
        """Take one loss in; the smoothed value."""
        self.total = self.beta * self.total + (1 - self.beta) * loss
        self.weight = self.beta * self.weight + (1 - self.beta)
        return self.total / self.weight
