"""An optimizer's memory as tensors and plain data, and back, bit for bit whatever the optimizer."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.train.optimizers.elsewhere import is_large

OF_THE_RUN = {"params", "lr", "base_lr", "name"}
"""What a group holds that the settings say anew when a run goes on."""


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All that it moves, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def tensors_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`3.exp_avg` -> tensor, by the parameter's number in the optimizer's own counting."""
    return {
        f"{index}.{key}": value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items() if isinstance(value, Tensor)
    }


def facts_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What else it remembers: plain values a parameter, and what in its groups is no longer as it was made."""
    state = optimizer.state_dict()
    values = {
        str(index): {key: value for key, value in own.items() if _plain(value)} for index, own in state["state"].items()
    }
    groups = [
        {key: value for key, value in group.items()
         if key not in OF_THE_RUN and _plain(value) and value != optimizer.defaults.get(key)}
        for group in state["param_groups"]
    ]
    return {"values": {index: own for index, own in values.items() if own}, "groups": groups}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def restore(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], elsewhere: bool = False
) -> None:
    """Give a new optimizer of the same parameters the memory of another; with `elsewhere`, in main memory."""
    kept: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        kept.setdefault(int(index), {})[name] = value
    for index, values in facts.get("values", {}).items():
        kept.setdefault(int(index), {}).update(values)
    away = [(index, name) for index, values in kept.items() for name, value in values.items()
            if elsewhere and is_large(value)]  # fmt: skip
    apart = [(index, name, kept[index].pop(name)) for index, name in away]  # torch takes all it loads to the device
    optimizer.load_state_dict({**optimizer.state_dict(), "state": kept})
    for group, values in zip(optimizer.param_groups, facts.get("groups", ()), strict=False):
        group |= values
    _put_back_formats(optimizer, kept)
    parameters = parameters_of(optimizer)
    for index, name, value in apart:
        optimizer.state[parameters[index]][name] = value.to("cpu", copy=True)


def _put_back_formats(optimizer: torch.optim.Optimizer, kept: Mapping[int, Mapping[str, Any]]) -> None:
    """torch casts whatever it loads to the parameter's number format; eight-bit codes are to stay codes."""
    parameters = parameters_of(optimizer)
    for index, values in kept.items():
        state = optimizer.state[parameters[index]]
        for name, value in values.items():
            if isinstance(value, Tensor) and isinstance(state.get(name), Tensor) and state[name].dtype != value.dtype:
                state[name] = value.to(state[name].device, copy=True)
