"""Adjusting the detail and colour of a model by its first and last layers. Source: SuperMerger, "Adjust"."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_sdtrain.errors import UserError
from lib_sdtrain.merge.blocks import SDXL, Layout

if TYPE_CHECKING:
    from torch import Tensor

_UNET = "model.diffusion_model."
_COLOURS = {
    False: ((-1, 1 / 3, 2 / 3), (1, 1, 0), (0, -1, -1), (1, 0, 1)),
    True: ((0, 0, 1), (1, 0, 0), (-1, -1, 0), (-1, 1, 0)),
}
"""Per brightness and colour control, what is added to latent channels 1, 2 and 3; by whether it is SDXL."""


@dataclass(frozen=True)
class Adjustment:
    """What happens to one tensor: times `factor`, plus `offsets` (one a channel, none: nothing)."""

    factor: float = 1.0
    offsets: tuple[float, ...] = ()

    def apply(self, tensor: Tensor) -> Tensor:
        """The adjusted tensor, in its own precision; the argument is left as it is."""
        adjusted = tensor * self.factor
        return adjusted + adjusted.new_tensor(self.offsets) if self.offsets else adjusted


def parse_adjust(text: str | None, layout: Layout) -> dict[str, Adjustment]:
    """Tensor name -> adjustment, from up to 8 numbers f1..f8 (the rest is 0).

    f1: input weight (1 - .01 f1), bias (1 + .02 f1); f2: the same of out.0; f3: out.2 weight (1 - .01 f3);
    f4: .02 f4 added to the first output channel (contrast), f5-f8 (brightness, colours) to the others.
    Raises `UserError` for more than 8 numbers or something else.
    """
    if not text or not text.strip():
        return {}
    try:
        given = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{text!r} is not a list of numbers", where="adjust", fix="for instance 0,0,0,2") from error
    if len(given) > 8:
        raise UserError(f"{len(given)} numbers", where="adjust", fix="give at most 8")
    f = given + [0.0] * (8 - len(given))
    table = {
        "input_blocks.0.0.weight": Adjustment(1 - 0.01 * f[0]),
        "input_blocks.0.0.bias": Adjustment(1 + 0.02 * f[0]),
        "out.0.weight": Adjustment(1 - 0.01 * f[1]),
        "out.0.bias": Adjustment(1 + 0.02 * f[1]),
        "out.2.weight": Adjustment(1 - 0.01 * f[2]),
        "out.2.bias": Adjustment(offsets=_offsets(f[3:], layout)) if any(f[3:]) else Adjustment(),
    }
    return {_UNET + name: change for name, change in table.items() if change != Adjustment()}


def _offsets(f: Sequence[float], layout: Layout) -> tuple[float, ...]:
    colours = _COLOURS[layout is SDXL]
    channels = [sum(value * row[channel] for value, row in zip(f[1:], colours, strict=True)) for channel in range(3)]
    return tuple(0.02 * value for value in (f[0], *channels))
