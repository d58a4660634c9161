"""Learning-rate schedules, as factors of the base rate. Formulas of diffusers' `get_scheduler`."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from lib_sdtrain.errors import Problems

WHERE = "train.lr_scheduler_args"
POLYNOMIAL_END = 1e-7  # a learning rate, diffusers' default


def rate_factor(
    kind: str, step: int, total: int, warmup: int, options: Mapping[str, Any] | None = None, base: float = 1.0
) -> float:
    """The factor at optimiser step `step` (0 for the first) of `total`, after `warmup` linear steps from 0.

    `options` are the schedule's arguments, `base` is the learning rate (polynomial's `lr_end` is one too).
    """
    options = options or {}
    if step < warmup:
        return step / max(1, warmup)
    if kind == "piecewise_constant":
        return _piece(parse_rules(options.get("step_rules", "1")), step)
    progress = (step - warmup) / max(1, total - warmup)
    return _SCHEDULES[kind](progress, options, base)


def _linear(progress: float, options: Mapping[str, Any], base: float) -> float:
    del options, base
    return max(0.0, 1.0 - progress)


def _cosine(progress: float, options: Mapping[str, Any], base: float) -> float:
    del base
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (options.get("num_cycles", 0.5) * 2.0) * progress)))


def _restarts(progress: float, options: Mapping[str, Any], base: float) -> float:
    del base
    if progress >= 1.0:
        return 0.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((options.get("num_cycles", 1) * progress) % 1.0))))


def _polynomial(progress: float, options: Mapping[str, Any], base: float) -> float:
    end = options.get("lr_end", POLYNOMIAL_END) / base if base else 0.0
    return end + (1.0 - end) * max(0.0, 1.0 - progress) ** options.get("power", 1.0)


_SCHEDULES: Mapping[str, Callable[[float, Mapping[str, Any], float], float]] = {
    "constant": lambda progress, options, base: 1.0, "linear": _linear, "cosine": _cosine,
    "cosine_with_restarts": _restarts, "polynomial": _polynomial,
}
_OPTIONS = {
    "cosine": {"num_cycles"}, "cosine_with_restarts": {"num_cycles"}, "polynomial": {"power", "lr_end"},
    "piecewise_constant": {"step_rules"},
}


def parse_rules(text: str) -> list[tuple[float, float]]:
    """`1:10,0.1:20,0.005` -> (factor, first step at which it no longer holds); raises `ValueError`."""
    rules = []
    *parts, last = str(text).split(",")
    for part in parts:
        factor, colon, until = part.partition(":")
        if not colon:
            raise ValueError(f"{part.strip()!r} has no step")
        rules.append((float(factor), float(until)))
    if any(one[1] >= two[1] for one, two in pairwise(rules)):
        raise ValueError("its steps do not grow")
    return [*rules, (float(last), math.inf)]


def _piece(rules: list[tuple[float, float]], step: int) -> float:
    return next(factor for factor, until in rules if step < until)


def check_schedule(kind: str, options: Mapping[str, Any], problems: Problems) -> None:
    """Add what is wrong with a schedule's arguments."""
    known = _OPTIONS.get(kind, set())
    for name, value in sorted(options.items()):
        if name not in known:
            fix = f"it has {', '.join(sorted(known))}" if known else "leave them out"
            problems.add(f"{kind} has no such argument", where=f"{WHERE}.{name}", fix=fix)
        elif name == "step_rules":
            try:
                parse_rules(value)
            except ValueError as error:
                problems.add(f"{value!r} is no list of steps: {error}", where=f"{WHERE}.{name}",
                             fix="write factor:step, ..., and the last factor, as in 1:1000,0.1")
        elif not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            problems.add(f"{value!r} is not a number of at least 0", where=f"{WHERE}.{name}")


class SmoothedLoss:
    """Exponential moving average with bias correction (Adam's), so that the first values count fully."""

    def __init__(self, beta: float = 0.98) -> None:
        self.beta, self.total, self.weight = beta, 0.0, 0.0

    def update(self, loss: float) -> float:
        """Take one loss in; the smoothed value."""
        self.total = self.beta * self.total + (1 - self.beta) * loss
        self.weight = self.beta * self.weight + (1 - self.beta)
        return self.total / self.weight
