"""One step of an optimizer, taken by some of its weights after the others."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class InTurn:
    """A step that each part of the parameters takes as if the optimizer had it alone; `finish` ends it.

    The numbers are those of a step of all together, for an optimizer that treats each parameter on its own: every part
    finds its group as the step began, without what the optimizer noted there for the part before.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, step: Callable[[], Any]) -> None:
        groups = optimizer.param_groups
        self.optimizer, self._take = optimizer, step
        self._before = [dict(group) for group in groups]
        self._alone = [dict(group) for group in groups]
        self._stepped = [False] * len(groups)

    def step(self, number: int, parameters: list[Tensor]) -> None:
        """Move these parameters, of the group of this number."""
        groups, before, alone = self.optimizer.param_groups, self._before[number], self._alone[number]
        for name in alone.keys() - before.keys():
            del alone[name]
        alone.update(before, params=parameters)
        self.optimizer.param_groups = [alone]
        try:
            self._take()
        finally:
            self.optimizer.param_groups = groups
        self._stepped[number] = True

    def finish(self) -> None:
        """Count the step in the groups, once each, also in those that no gradient has reached."""
        for number, group in enumerate(self.optimizer.param_groups):
            if not self._stepped[number]:
                self.step(number, [])
            group |= {**self._alone[number], "params": group["params"]}
