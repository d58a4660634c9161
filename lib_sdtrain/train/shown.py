"""What a training has learnt so far, for another program to draw with, and the device left to it meanwhile."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from lib_sdtrain.model.build import to_file_tensors
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.settings.run_method import LORA
from lib_sdtrain.train.layout import child_specs
from lib_sdtrain.train.lora_choice import chosen_layers
from lib_sdtrain.train.studio import Weights
from lib_sdtrain.train.trainer import Trainer


def shown_weights(trainer: Trainer, name: str) -> Weights:
    """What the trainer's model has learnt, as its files will hold it, in main memory."""
    with trainer.shown_weights(), torch.no_grad():
        lora = trainer.settings.method.kind == LORA
        tensors = _with_lora(trainer) if lora else _as_saved(trainer)
        embeddings = tuple(
            replace(embedding, parts={key: part.to("cpu", copy=True) for key, part in embedding.parts.items()})
            for embedding in trainer.inversions.shown()
        )
    return Weights(name, tensors, embeddings)


def _as_saved(trainer: Trainer) -> dict[str, Tensor]:
    """Rounded as the checkpoint that is saved, so that both draw the same picture."""
    plan = trainer.plan
    formats = child_specs(plan.checkpoint, plan.settings, trainer.model.family)
    found = {}
    for name, part in trainer.model_parts.items():
        for key, tensor in to_file_tensors(name, part, plan.checkpoint).items():
            file_key = plan.checkpoint.file_keys[key]
            dtype = formats[file_key][0] if file_key in formats else tensor.dtype
            found[key] = tensor.detach().to("cpu", dtype, copy=True)
    return found


def _with_lora(trainer: Trainer) -> dict[str, Tensor]:
    """The checkpoint's own layers with the LoRA's change added, in 32 bits: W + up down * scale."""
    checkpoint, found = trainer.plan.checkpoint, {}
    for part, layers in trainer.model_parts.items():
        chosen = chosen_layers(trainer.model.family, part, trainer.settings.method)
        changed = {f"{module}.weight": layers[choice.name] for module, choice in chosen.items()}
        shapes = {name: tuple(value.shape) for name, value in trainer.model.parts[part].state_dict().items()}
        for row in part_rows(checkpoint.family)[part]:
            if changed.keys().isdisjoint(row.names):
                continue
            own = {name: value.float() for name, value in row.to_module(checkpoint.tensor(row.key), shapes).items()}
            for name in changed.keys() & own.keys():
                own[name] = own[name] + _change(changed[name]).cpu()
            found[row.key] = row.to_file(own, checkpoint.shape(row.key)).detach()
    return found


def _change(layer: nn.Module) -> Tensor:
    """What a LoRA adds to its layer's weight, in the weight's shape; `lora_up` of a convolution is 1x1."""
    up, down = layer.lora_up.weight.float(), layer.lora_down.weight.float()
    product = up.flatten(1) @ down.flatten(1)
    return product.reshape(up.shape[0], *down.shape[1:]) * layer.scale


@contextmanager
def off_device(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, the modules lie in main memory and leave the device to others; their parameters stay the same
    objects, so that an optimiser goes on with them."""
    homes = [(module, next(module.parameters()).device) for module in modules]
    try:
        for module, _ in homes:
            module.to("cpu")
        yield
    finally:
        for module, home in homes:
            module.to(home)
