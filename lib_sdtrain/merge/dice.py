"""Dice: block weights drawn at random within bounds, from one seed.

The stream is SuperMerger's: `numpy.random.RandomState(seed)`'s uniform numbers, the one at position i for
alpha's block i and the one at 50 + i for beta's, so that its seeds give its weights. Unlike there, nothing
else is drawn, and the same seed gives the same weights anywhere. Results are rounded to three decimals.
"""
from __future__ import annotations

from collections.abc import Sequence

from lib_sdtrain.errors import UserError

_DRAWS, _BETA_OFFSET, _DECIMALS = 3000, 50, 3
LETTERS = ("R", "U", "X")


def roll(
    fields: Sequence[str], seed: int, low: Sequence[float], high: Sequence[float], beta: bool = False
) -> list[str]:
    """`fields` with letters replaced: R by 0..1, U by -0.5..1.5, X by low..high of its block.

    `low` and `high` have one number a field. Numbers stay as they are.
    """
    import numpy as np

    draws = np.random.RandomState(seed).rand(_DRAWS)[_BETA_OFFSET if beta else 0 :]
    rolled = []
    for index, field in enumerate(fields):
        value = {
            "R": lambda u, i: u,
            "U": lambda u, i: 1.5 - 2 * u,
            "X": lambda u, i: high[i] - (high[i] - low[i]) * u,
        }.get(field)
        rolled.append(field if value is None else f"{round(float(value(draws[index], index)), _DECIMALS):g}")
    return rolled


def bounds(text: str, count: int, where: str) -> list[float]:
    """One number for every block from one number or `count` of them. Raises `UserError`."""
    parts = [part.strip() for part in text.split(",")]
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise UserError(f"{text!r} is neither a number nor a list of numbers", where=where) from error
    if len(numbers) not in (1, count):
        raise UserError(f"{len(numbers)} bounds for {count} weights", where=where, fix="give one, or one a weight")
    return numbers * count if len(numbers) == 1 else numbers
