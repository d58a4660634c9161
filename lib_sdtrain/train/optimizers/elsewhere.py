"""An optimizer whose moments lie in main memory: each group of weights borrows its own for its step.

Of AdamW in full this takes 8 bytes a weight off the card, for bringing them there and back at every step (ZeRO-Offload,
Ren et al. 2021, keeps them there too; it also computes there).
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.train.optimizers.in_turn import InTurn
from lib_sdtrain.train.optimizers.registry import treats_each_alone

SMALL = 2**14
"""Tensors of fewer values stay where they are: they take next to no memory, and copying each takes as long."""
TOGETHER = 2**28
"""Bytes of weights that step together: few enough to be little beside a model, enough for one quick step."""


def lie_elsewhere(train: TrainGroup, device: str) -> bool:
    """Whether a run's moments lie elsewhere than its weights: in main memory."""
    return train.optimizer_on_cpu and device == "cuda"


def can_lie_elsewhere(optimizer: str) -> bool:
    """Whether an optimizer's moments may: it treats each weight on its own, and does not page them itself."""
    return treats_each_alone(optimizer) and "Paged" not in optimizer


def check_elsewhere(train: TrainGroup, problems: Problems) -> None:
    """Add that an optimizer looks at all weights together, or may do so."""
    if train.optimizer_on_cpu and not can_lie_elsewhere(train.optimizer):
        problems.add(
            f"{train.optimizer} is not known to treat each weight on its own", where="train.optimizer_on_cpu",
            fix="turn it off, or choose adamw8bit, adamw, lion, adafactor or schedule_free",
        )


class MomentsElsewhere:
    """Has `optimizer.step` work on a few weights at a time, with their moments on the device only meanwhile.

    For optimizers that treat each weight on its own. The optimizer stays the one object that holds all states, now in
    main memory: what is saved of it does not differ. Not in pinned memory, of which torch gives nothing back as long as
    the process lives.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self._whole_step = optimizer, optimizer.step
        optimizer.step = self.step

    def step(self) -> None:
        """A step of all parameters with a gradient in the optimizer's groups."""
        turns = InTurn(self.optimizer, self._whole_step)
        for number, group in enumerate(self.optimizer.param_groups):
            for few in _in_parts(group["params"]):
                homes = self._borrow(few)
                turns.step(number, few)
                self._send_home(few, homes)
        turns.finish()

    def _borrow(self, parameters: list[Tensor]) -> dict[tuple[Tensor, str], Tensor]:
        """Put copies on the device into the state; what they were copied from."""
        homes = {}
        for parameter in parameters:
            state = self.optimizer.state.get(parameter, {})
            for name, value in _large(state):
                if value.device.type == "cpu":  # some are made on the device, before the first step
                    homes[parameter, name] = value
                    state[name] = value.to(parameter.device, copy=True)
        return homes

    def _send_home(self, parameters: list[Tensor], homes: Mapping[tuple[Tensor, str], Tensor]) -> None:
        """Bring what is in the state now to main memory, into the place that it has there."""
        for parameter in parameters:
            state = self.optimizer.state.get(parameter, {})
            for name, value in _large(state):
                home = homes.get((parameter, name))
                state[name] = value.to("cpu", copy=True) if home is None else home.copy_(value)


def is_large(value: Any) -> bool:
    """Whether it is a tensor that lies at home."""
    return isinstance(value, Tensor) and value.numel() >= SMALL


def _large(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in state.items() if is_large(value)]


def _in_parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Those with a gradient, in order, as many at a time as may be on the device together."""
    part, size = [], 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if part and size + parameter.nbytes > TOGETHER:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += parameter.nbytes
    if part:
        yield part
