"""Numbers that are none: looked for before training begins, in each step, and before anything is saved."""
from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.model.build import LoadedModel


class NotFiniteError(ArithmeticError):
    """What a step computed is infinite or no number; no weight has moved."""


class Unsound(JobFailed):
    """A step found no numbers. Weights and counters are as they were before it, so that they can be saved."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether there is no infinite value and no NaN among them. Tensors without data (on meta) are passed over."""
    found = [value.detach().float() for value in tensors if value.is_floating_point() and not value.is_meta]
    if not found:
        return True
    return bool(torch.stack([norm.cpu() for norm in torch._foreach_norm(found)]).isfinite().all())


def broken_parts(parts: Mapping[str, nn.Module]) -> list[str]:
    """The names of the parts that hold weights that are no numbers."""
    return [name for name, module in parts.items() if not all_finite(module.parameters())]


def check_model(model: LoadedModel) -> None:
    """Raise `UserError` when a checkpoint holds weights that are no numbers: every picture of it would be black."""
    if broken := broken_parts(model.parts):
        raise UserError(
            f"weights of its {' and '.join(broken)} are infinite or no numbers", where=str(model.checkpoint.path),
            fix="it is damaged: choose another checkpoint, or copy or download it again",
        )
