"""Steps inside backward: each parameter moves as soon as its gradient is complete, and the gradient is let go.

All gradients then never exist together, which saves nearly as much memory as the trained weights take. The numbers are
the same: an optimizer that treats each parameter on its own does not see which of them come together.

Clipping needs the norm of all gradients before the first of them is used. The backward pass is then computed twice, the
first time for the norms alone (Lv et al. 2023, Full Parameter Fine-tuning for Large Language Models with Limited
Resources: LOMO).
"""
from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from lib_sdtrain.errors import JobFailed, Problems
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.train.clipping import check_norms, norms_of, share_of
from lib_sdtrain.train.optimizers.in_turn import InTurn
from lib_sdtrain.train.optimizers.kept import parameters_of
from lib_sdtrain.train.optimizers.registry import PRODIGY, treats_each_alone

SETTING = "train.step_in_backward"
SMALL = 2**14
"""Gradients of fewer values (norms, biases) wait for the end: together they take next to no memory, and one step for
all is quicker than one for each."""
NOT_IN_PIECES = "out of memory; where each weight moves within backward, a batch cannot be taken in pieces"
PIECES_REMEDY = (
    f"lower train.batch_size or data.resolution, turn on train.gradient_checkpointing, choose train.optimizer "
    f"adamw8bit, train a LoRA, or turn {SETTING} off"
)


class BackwardSteps:
    """Makes `optimizer` step inside `backward`, which moves the parameters that it reaches.

    `make_room` is called before a step's forward pass, `finish` when it is over. `largest_norm` is what gradients are
    clipped to, 0 for not at all; `moment_bytes` what the optimizer keeps of each weight. The optimizer stays the one
    object that holds all states: what is saved of it does not differ.

    `moved` tells, in a step that is not over, whether weights have moved: such a step cannot be taken back.

    Nothing that stays is made while gradients come and go. glibc puts it right behind the gradient that is there, and
    when that is let go, the next of its size finds the hole too small and takes new memory: 0.7 to 1.3 GB of SD1.5. So
    norms and small gradients are copied into places of their own, and the groups are copied before backward.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, largest_norm: float = 0.0, moment_bytes: int = 0) -> None:
        self.optimizer, self.largest_norm = optimizer, largest_norm
        self._moment_bytes = moment_bytes
        self._room: dict[Tensor, Tensor] | None = None
        self._places = {parameter: place for place, parameter in enumerate(parameters_of(optimizer))}
        self._came = bytearray(len(self._places))
        self._waiting = {parameter: torch.empty_like(parameter, requires_grad=False) for parameter in self._places
                         if parameter.numel() < SMALL}  # fmt: skip  # where small gradients wait for `finish`
        self._norms: Tensor | None = None  # of each parameter's gradient, while only they are wanted
        self._share: Tensor | None = None  # of each gradient that is used, where that is less than all of it
        self._turns: InTurn | None = None  # the step that is being taken
        self.moved = False
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._take, number))

    def make_room(self) -> None:
        """Before the first step: keep addresses for what the optimizer has not made yet.

        Only now, when all that training does without has been let go: moments then take its place.
        """
        if self._room is None:
            new = [parameter for parameter in self._places if not self.optimizer.state.get(parameter)]
            self._room = _reserved(new, self._moment_bytes)

    def backward(self, loss: Tensor) -> None:
        """From a loss to weights that have moved.

        Raises `JobFailed` for a gradient that comes in parts, and where it clips `NotFiniteError` for one that is no
        number.
        """
        self._forget()
        self._turns = InTurn(self.optimizer, self.optimizer.step)
        if self.largest_norm:
            norms = self._norms_of(loss)
            check_norms(norms)
            self._share = share_of(norms, self.largest_norm)
        loss.backward()

    def _norms_of(self, loss: Tensor) -> Tensor:
        """The norms of all gradients, in the order that clipping them together has; the graph is kept."""
        norms = self._norms = next(iter(self._places)).new_zeros(len(self._places))
        loss.backward(retain_graph=True)
        found = norms[[place for place, came in enumerate(self._came) if came]]
        self._forget()
        return found

    def _forget(self) -> None:
        """No gradient has come, and those to come are used."""
        self._norms = None
        self._came[:] = bytes(len(self._came))

    def finish(self) -> None:
        """Move what waited, and count the step in the groups, once each, also in those that no gradient reached."""
        for number, group in enumerate(self.optimizer.param_groups):
            waiting = [parameter for parameter in group["params"] if parameter.grad is not None]
            if waiting:
                self._step(number, waiting)
        self._turns.finish()
        self.moved = False
        self._room = {}  # what no gradient has reached needs none

    def _take(self, number: int, parameter: Tensor) -> None:
        """A parameter's gradient has come."""
        place = self._places[parameter]
        if self._came[place]:
            raise JobFailed(
                "a weight's gradient came in more than one part", where=SETTING, fix=f"turn {SETTING} off"
            )
        self._came[place] = True
        if self._norms is not None:
            self._norms[place] = norms_of([parameter.grad])[0]
            parameter.grad = None
            return
        if self._share is not None:
            parameter.grad.mul_(self._share)
        if self._room:
            self._room.pop(parameter, None)
        if parameter in self._waiting:
            parameter.grad = self._waiting[parameter].copy_(parameter.grad)
        else:
            self._step(number, [parameter])

    def _step(self, number: int, parameters: list[Tensor]) -> None:
        """One step of the optimizer as if it had these parameters of a group alone; their gradients are let go."""
        self.moved = True
        self._turns.step(number, parameters)
        for parameter in parameters:
            parameter.grad = None


def _reserved(parameters: Iterable[Tensor], moment_bytes: int) -> dict[Tensor, Tensor]:
    """Addresses in main memory for what the optimizer will keep of each parameter, let go as it is made.

    No memory is taken for them. Made in between activations, moments would leave gaps there that nothing fits into: up
    to 2 GB more for SD1.5, and slower steps.
    """
    return {
        parameter: torch.empty(moment_bytes * parameter.numel() + SMALL, dtype=torch.uint8)
        for parameter in parameters
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
    elif not treats_each_alone(train.optimizer):
        problems.add(
            f"it is not known whether {train.optimizer} treats each weight on its own", where="train.optimizer",
            fix=f"choose an optimizer that is named here or of torch.optim, {off}",
        )
