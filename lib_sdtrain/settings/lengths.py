"""Lengths: steps, epochs and samples are interchangeable wherever a length is asked."""
from __future__ import annotations

import math
import re
from dataclasses import dataclass

UNITS = ("steps", "epochs", "samples")
_FORM = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\s*$")


@dataclass(frozen=True)
class Length:
    """An amount of training: `1000` (steps), `30 epochs`, `100000 samples`."""

    amount: float
    unit: str = "steps"

    def __str__(self) -> str:
        number = repr(self.amount) if self.amount != int(self.amount) else str(int(self.amount))
        return number if self.unit == "steps" else f"{number} {self.unit}"

    def steps(self, samples_a_step: int, samples_an_epoch: int) -> int:
        """Whole optimiser steps, rounded up. `samples_a_step` counts instance pictures over all accumulation."""
        if self.unit == "steps":
            return math.ceil(self.amount)
        samples = self.amount * samples_an_epoch if self.unit == "epochs" else self.amount
        return math.ceil(samples / samples_a_step)


def parse_length(raw: object) -> Length:
    """A `Length` from `1000`, `"30 epochs"` or `"100000 samples"`; ValueError says what is accepted."""
    if isinstance(raw, Length):
        return raw
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        text = repr(raw)
    elif isinstance(raw, str):
        text = raw
    else:
        text = ""
    match = _FORM.match(text)
    unit = match[2].lower() if match else ""
    unit = unit if not unit or unit.endswith("s") else unit + "s"
    if not match or (unit and unit not in UNITS):
        message = f"{raw!r} is not a length; write 1000 (steps), 30 epochs or 100000 samples"
        raise ValueError(message)
    amount = float(match[1].replace("_", "").replace(",", ""))
    if (not unit or unit == "steps") and amount != int(amount):
        message = f"{raw!r}: steps are whole numbers"
        raise ValueError(message)
    return Length(amount, unit or "steps")
