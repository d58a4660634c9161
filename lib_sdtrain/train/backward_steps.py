"""Steps inside backward: each parameter moves as soon as its gradient is complete, and the gradient is let go.

All gradients then never exist together, which saves nearly as much memory as the trained weights take. The numbers are
the same: an optimizer that treats each parameter on its own does not see which of them come together.

Clipping needs the norm of all gradients before the first of them is used. The backward pass is then computed twice, the
first time for the norms alone (Lv et al. 2023, Full Parameter Fine-tuning for Large Language Models with Limited
Resources: LOMO).
"""
from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.errors import JobFailed, Problems, UserError
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.train.clipping import norms_of, share_of
from lib_sdtrain.train.optimizers.kept import parameters_of
from lib_sdtrain.train.optimizers.registry import PRODIGY, optimizer_class

SETTING = "train.step_in_backward"
SMALL = 2**14
"""Gradients of fewer values (norms, biases) wait for the end: together they take next to no memory, and one step for
all is quicker than one for each."""
NOT_IN_PIECES = "out of memory; where each weight moves within backward, a batch cannot be taken in pieces"
PIECES_REMEDY = (
    f"lower train.batch_size or data.resolution, turn on train.gradient_checkpointing, choose train.optimizer "
    f"adamw8bit, train a LoRA, or turn {SETTING} off"
)
_EACH_ALONE = ("torch.optim", "bitsandbytes.optim", "lib_sdtrain.train.optimizers", "transformers.optimization")


class BackwardSteps:
    """Makes `optimizer` step inside `backward`, which moves the parameters that it reaches.

    `finish` must be called when it is over. `largest_norm` is what gradients are clipped to, 0 for not at all;
    `moment_bytes` what the optimizer keeps of each weight. The optimizer stays the one object that holds all states:
    what is saved of it does not differ.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, largest_norm: float = 0.0, moment_bytes: int = 0) -> None:
        self.optimizer, self.largest_norm = optimizer, largest_norm
        self._room = _reserved(optimizer, moment_bytes)
        self._norms: dict[Tensor, Tensor] | None = None  # while only norms are wanted
        self._share: Tensor | None = None  # of each gradient that is used, where that is less than all of it
        self._moved: set[Tensor] = set()
        self._after: dict[int, dict[str, Any]] = {}  # number of a group -> what it holds after this step
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._take, number))

    def backward(self, loss: Tensor) -> None:
        """From a loss to weights that have moved. Raises `JobFailed` for a gradient that comes in parts."""
        if self.largest_norm:
            self._share = share_of(self._norms_of(loss), self.largest_norm)
        loss.backward()

    def _norms_of(self, loss: Tensor) -> list[Tensor]:
        """The norms of all gradients, in the order that clipping them together has; the graph is kept."""
        found: dict[Tensor, Tensor] = {}
        self._norms = found
        loss.backward(retain_graph=True)
        self._norms = None
        return [found[parameter] for parameter in parameters_of(self.optimizer) if parameter in found]

    def finish(self) -> None:
        """Move what waited, and count the step in the groups, once each, also in those that no gradient reached."""
        for number, group in enumerate(self.optimizer.param_groups):
            waiting = [parameter for parameter in group["params"] if parameter.grad is not None]
            if waiting or number not in self._after:
                self._step(number, waiting)
            group |= self._after[number]
        self._moved.clear()
        self._after.clear()

    def _take(self, number: int, parameter: Tensor) -> None:
        """A parameter's gradient has come."""
        if parameter in (self._moved if self._norms is None else self._norms):
            raise JobFailed(
                "a weight's gradient came in more than one part", where=SETTING, fix=f"turn {SETTING} off"
            )
        if self._norms is not None:
            self._norms[parameter] = norms_of([parameter.grad])[0]
            parameter.grad = None
            return
        if self._share is not None:
            parameter.grad.mul_(self._share)
        self._moved.add(parameter)
        self._room.pop(parameter, None)
        if parameter.numel() >= SMALL:
            self._step(number, [parameter])

    def _step(self, number: int, parameters: list[Tensor]) -> None:
        """One step of the optimizer as if it had these parameters of a group alone; their gradients are let go."""
        groups = self.optimizer.param_groups
        alone = {**groups[number], "params": parameters}
        self.optimizer.param_groups = [alone]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        for parameter in parameters:
            parameter.grad = None
        self._after[number] = {name: value for name, value in alone.items() if name != "params"}


def _reserved(optimizer: torch.optim.Optimizer, moment_bytes: int) -> dict[Tensor, Tensor]:
    """Addresses in main memory for what the optimizer will keep of each parameter, let go as it is made.

    They take no memory. Made in between activations, moments would leave gaps there that nothing fits into: up to 2 GB
    more for SD1.5, and slower steps.
    """
    return {
        parameter: torch.empty(moment_bytes * parameter.numel() + SMALL, dtype=torch.uint8)
        for parameter in parameters_of(optimizer)
        if moment_bytes and parameter.numel() >= SMALL and not parameter.is_cuda
    }  # fmt: skip


def check_backward_steps(train: TrainGroup, problems: Problems) -> None:
    """Add what does not go together with steps inside backward, each with what to do."""
    if not train.step_in_backward:
        return
    off = f"or turn {SETTING} off"
    if train.gradient_accumulation_steps > 1:
        problems.add(
            "gradients cannot be gathered over micro-steps where each is used at once",
            where="train.gradient_accumulation_steps", fix=f"set it to 1, {off}",
        )
    if train.mixed_precision == "fp16":
        problems.add(
            "fp16's loss scale needs all gradients before the step", where="train.mixed_precision",
            fix=f"use bf16 or no, {off}",
        )
    if train.optimizer == PRODIGY:
        problems.add(
            "prodigy finds one rate from all gradients together", where="train.optimizer",
            fix=f"choose adamw8bit, adamw, lion, adafactor or schedule_free, {off}",
        )
    elif not _each_alone(train.optimizer):
        problems.add(
            f"it is not known whether {train.optimizer} treats each weight on its own", where="train.optimizer",
            fix=f"choose an optimizer that is named here or of torch.optim, {off}",
        )


def _each_alone(name: str) -> bool:
    """Whether the optimizer treats each parameter on its own. One that cannot be found is told of elsewhere."""
    try:
        module = optimizer_class(name).__module__
    except UserError:
        return True
    return module.startswith(_EACH_ALONE)
