"""What a merge method is: a pure function of tensors, and what people and the engine need to know of it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

A, B, C = "a", "b", "c"


@dataclass(frozen=True)
class Method:
    """A merge method.

    `function(a, b, c, ..., *, <params>)` takes one tensor of each model, all of one shape, and gives the
    merged tensor. It must not change its arguments. `params` names the settings it takes by keyword:
    `alpha`, `beta` (scalars of the block), other settings, `generator` (a torch.Generator seeded for the
    tensor) and `low`, `high` (found by `survey`).

    `elementwise` methods are computed in pieces, so that memory does not grow; the others see whole
    tensors. `exact(alpha, beta)` names the model that the result equals at these weights, which is then
    copied, not computed. `skips` are parts of names of tensors that the method leaves as in A.
    `in_place` is the same formula, bit for bit, on fp32 buffers that it may overwrite; it gives the one with
    the result. It saves the temporaries of the methods that people use most.
    `survey(a, b)` gives numbers per tensor; the smallest and the largest of the whole model, without the
    outer percent on either side, become `low` and `high`.
    """

    name: str
    title: str
    formula: str
    sentence: str
    source: str
    function: Callable[..., torch.Tensor]
    models: int
    params: tuple[str, ...] = ("alpha",)
    beta: float | None = None
    elementwise: bool = True
    many: bool = False
    exact: Callable[[float, float], str | None] = lambda alpha, beta: None
    skips: tuple[str, ...] = ()
    survey: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    in_place: Callable[..., torch.Tensor] | None = None

    @property
    def uses_beta(self) -> bool:
        """Whether a second weight matters."""
        return "beta" in self.params


def a_at_zero(alpha: float, beta: float) -> str | None:
    """`exact` of methods that add something times alpha to A."""
    del beta
    return A if alpha == 0 else None


def a_to_b(alpha: float, beta: float) -> str | None:
    """`exact` of methods that go from A at 0 to B at 1."""
    del beta
    return {0: A, 1: B}.get(alpha)
