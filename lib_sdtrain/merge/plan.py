"""What becomes of every tensor, decided before anything is computed.

A plan is pure data: two plans can be compared, so that a live merge computes only what changed, and a
report can say which tensor took which weight.

Which tensors the result has: those of A. A tensor that another model of the formula lacks stays A's. A
whole part (VAE, text encoder) that A lacks is taken from the first model that has it. Other tensors that
A lacks are left out. Position ids, schedule buffers and markers are never merged.
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

import torch

from lib_sdtrain.merge.adjust import Adjustment
from lib_sdtrain.merge.methods import Method


@dataclass(frozen=True)
class Source:
    """A tensor of a file: the model's role (a, b, c, m1, ..., vae), the file, and the tensor's name there."""

    role: str
    path: str
    key: str


@dataclass(frozen=True)
class Step:
    """One tensor of the result.

    `block` is the block whose weight it takes, or KEEP. Without `method` it is `sources[0]`, copied (and
    cast to `dtype` where that differs). `channels`: only the first so many of dimension 1 are merged, the
    rest is A's. `params` are the method's other settings. `loras` are (number, weight) pairs.
    """

    key: str
    block: str
    sources: tuple[Source, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    method: str | None = None
    alpha: float = 0.0
    beta: float = 0.0
    params: tuple[tuple[str, float], ...] = ()
    channels: int | None = None
    loras: tuple[tuple[str, float], ...] = ()
    adjustment: Adjustment | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in the result."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def copied(self) -> bool:
        """Whether the values come from one file as they are (perhaps cast)."""
        return self.method is None and not self.loras and self.adjustment is None


@dataclass(frozen=True)
class MergePlan:
    """Every step by key of the result, the method, the arithmetic, and what the user should know."""

    steps: dict[str, Step]
    method: Method
    arithmetic: str
    notes: tuple[str, ...] = ()

    @property
    def specs(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """dtype and shape of every tensor, as the writer wants them."""
        return {key: (step.dtype, step.shape) for key, step in self.steps.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the result."""
        return sum(step.nbytes for step in self.steps.values())

    @property
    def merged(self) -> list[str]:
        """Keys that are computed by the method."""
        return [key for key, step in self.steps.items() if step.method is not None]


def changed(old: MergePlan, new: MergePlan) -> list[str]:
    """Keys of `new` whose tensors are not what `old` made: only these need computing again."""
    same_arithmetic = old.arithmetic == new.arithmetic
    return [
        key for key, step in new.steps.items()
        if old.steps.get(key) != step or not (same_arithmetic or step.copied)
    ]  # fmt: skip


def block_report(plan: MergePlan) -> list[dict[str, object]]:
    """Which tensors took which weight, one row a (part, block, weight): for people and for the recipe."""
    counts: Counter[tuple[str, str, float | None, float | None]] = Counter()
    for step in plan.steps.values():
        merged = step.method is not None
        counts[_part(step.key), step.block, step.alpha if merged else None, step.beta if merged else None] += 1
    return [
        {"part": part, "block": block, "alpha": alpha, "beta": beta, "tensors": count}
        for (part, block, alpha, beta), count in counts.items()
    ]


def _part(key: str) -> str:
    from lib_sdtrain.merge.blocks import kind_of

    kind, _ = kind_of(key)
    return kind
