"""The moving average of the trained weights (EMA): kept beside them, taken over from a file, put in their place."""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import Problems
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.keys import UNET, ema_key, part_rows
from lib_sdtrain.model.parts import EMA_COUNTERS
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EmaSettings

NUM_UPDATES = EMA_COUNTERS[1]
_FINE = 10**6
"""Steps of an epoch, to compare two lengths in epochs of which nothing else is known."""


def decay_at(update: int, settings: EmaSettings, after: int = 0) -> float:
    """What stays of the average at update number `update` (1 for the first); 0 up to update number `after`.

    With n counted from there: ldm min(decay, (1 + n) / (10 + n)), as LDM's LitEma and torch_ema have it. power
    min(decay, 1 - (1 + n' / inv_gamma)^-power) with n' = n - 1, as diffusers' EMAModel with its warm-up; like it, the
    first update takes the weights as they are.
    """
    count = update - after
    if count <= 0:
        return 0.0
    if settings.warm_up == "ldm":
        return min(settings.decay, (1 + count) / (10 + count))
    if settings.warm_up == "power":
        return min(settings.decay, 1 - (1 + (count - 1) / settings.inv_gamma) ** -settings.power)
    return settings.decay


def check_average(settings: RunSettings, problems: Problems, samples_an_epoch: int | None = None) -> None:
    """Add it to `problems` when the average would never take a weight in.

    What is given in epochs is compared with what is not where their samples are known, all else where they are not.
    """
    every, length, train = settings.ema.every, settings.train.length, settings.train
    told_alike = (every.unit == "epochs") == (length.unit == "epochs")
    if settings.ema.decay is None or told_alike != (samples_an_epoch is None):
        return
    samples = train.batch_size * train.gradient_accumulation_steps
    epoch = samples * _FINE if samples_an_epoch is None else samples_an_epoch
    if every.steps(samples, epoch) > length.steps(samples, epoch):
        unit = " steps" if every.unit == "steps" else ""
        problems.add(
            f"every {every}{unit} is longer than the run ({length}): the average would be the weights it begins with",
            where="ema.every", fix="lower it",
        )


class Average:
    """The average of the parameters of `parts`, fp32, on `device`; it begins as they are.

    Up to so many `steps` it is the parameters as they are then. Updates come once in `every` steps, and those that an
    average had before this run do not count towards it.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], settings: EmaSettings, steps: int, every: int, device: torch.device
    ) -> None:
        self.settings, self.every = settings, max(1, every)
        self.updates = self._began = 0
        self._waits = steps // self.every
        self._waited: int | None = None
        self.parameters = {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()
        }
        self.weights = {
            name: value.detach().to(device, torch.float32, copy=True) for name, value in self.parameters.items()
        }

    @property
    def after(self) -> int:
        """The number of the last update at which the average is the parameters; 0 where it goes on from the first.

        Once that is over it stays so, however many steps of another batch `steps` would be.
        """
        if self._waited is not None:
            return self._waited
        return self._began + self._waits if self._waits else 0

    def update(self) -> None:
        """Take the parameters in: average + (1 - decay) (parameter - average)."""
        self.updates += 1
        share = 1 - decay_at(self.updates, self.settings, self.after)
        averages = list(self.weights.values())
        now = [
            value.detach().to(own.device, own.dtype)
            for value, own in zip(self.parameters.values(), averages, strict=True)
        ]
        torch._foreach_lerp_(averages, now, share)

    @property
    def waited(self) -> int | None:
        """`after` where that is over, else None: what a state tells of it."""
        return self.after if self.updates > self.after else None

    def load(self, weights: Mapping[str, Tensor], updates: int, waited: int | None = None) -> None:
        """Go on from an average of the same parameters; from one without updates it begins anew."""
        self._waited = waited
        self.updates = updates
        self._began = min(self._began, updates)
        for name, value in self.weights.items():
            value.copy_(weights[name].detach())

    def go_on_from(self, checkpoint: Checkpoint) -> bool:
        """Take over the UNet's average that a checkpoint carries (`model_ema.*`); False when it carries none.

        Tensors that its maker did not train have none and begin as they are.
        """
        if f"{UNET}.conv_in.weight" not in self.weights:
            return False
        found = False
        for row in part_rows(checkpoint.family)[UNET]:
            key = ema_key(row.key)
            if key not in checkpoint.file_keys:
                continue
            found = True
            shapes = {name: self.weights[f"{UNET}.{name}"].shape for name in row.names}
            for name, value in row.to_module(checkpoint.tensor(key), shapes).items():
                self.weights[f"{UNET}.{name}"].copy_(value)
        if found and NUM_UPDATES in checkpoint.file_keys:
            self.updates = self._began = int(checkpoint.tensor(NUM_UPDATES))
        return found
