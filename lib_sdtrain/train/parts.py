"""Which modules a run trains, and other weights in their place for a while."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, LORA
from lib_sdtrain.train.lora_layers import attach


def trained_parts(settings: RunSettings, model: LoadedModel) -> dict[str, nn.Module]:
    """The modules that are trained, by the name under which the state keeps them: parts of the model, or their LoRA.

    An embedding is trained beside them.
    """
    method, parts = settings.method, {}
    if method.kind == EMBEDDING:
        return parts
    for name in (UNET, *TEXT_ENCODERS):
        if name in model.parts and method.trains(name):
            parts[name] = model.parts[name]
    if method.kind == LORA:
        return {
            name: attach(model.family, name, part, method, settings.train.seed) for name, part in parts.items()
        }
    return parts


@contextmanager
def swapped(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """While open, each parameter holds the other values; afterwards its own again, bit for bit."""
    own = []
    try:
        for parameter, value in pairs:
            own.append((parameter, parameter.data))
            parameter.data = value.to(parameter.data)
        yield
    finally:
        for parameter, before in own:
            parameter.data = before
