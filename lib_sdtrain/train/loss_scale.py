"""fp16's loss scale: gradients that would be too small for 16 bits are made larger, and smaller again in 32."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lib_sdtrain.train.soundness import NotFiniteError

INITIAL = 65536.0
"""2**16, torch's own and bigASP's."""
LEAST = 2.0**-10
"""What no sound run comes down to: with it, sums of 16 bits would have to be thousands of times too large."""


def make_scaler(device: str, growth_interval: int) -> Any:
    """torch's GradScaler: half the scale after an overflow, whose step is left out, twice after so many steps without.

    torch before 2.3, as the WebUI comes with it, has it under another name.
    """
    made = getattr(torch.amp, "GradScaler", None)
    if made is None:
        return torch.cuda.amp.GradScaler(init_scale=INITIAL, growth_interval=growth_interval)
    return made(device, init_scale=INITIAL, growth_interval=growth_interval)


def update(scaler: Any) -> None:
    """Have the scale follow what the step found.

    Raises `NotFiniteError` where steps overflow however small it is; the last one has moved nothing then.
    """
    before = scaler.get_scale()
    scaler.update()
    if scaler.get_scale() < min(before, LEAST):
        raise NotFiniteError("all gradients overflow fp16")


def restore(scaler: Any, facts: Mapping[str, Any]) -> None:
    """Go on with a saved scale; with a new one where every step had overflowed, as the run is to go on otherwise.

    It grows as often as `scaler` was made to. torch grows it at the very number of steps, not beyond: more of them than
    a shorter interval has count as all but the last.
    """
    interval = scaler.get_growth_interval()
    if facts["scale"] >= LEAST:
        sound = min(facts["_growth_tracker"], interval - 1)
        scaler.load_state_dict({**facts, "growth_interval": interval, "_growth_tracker": sound})
