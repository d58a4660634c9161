"""In which ways pictures are trained: as they are, mirrored, or both. A folder may have its own chance (flip_p.txt)."""
from __future__ import annotations

import numpy as np

from lib_sdtrain.data.concepts import Material

PLAIN, MIRRORED = 1, 2
FLIPS = ((), (False,), (True,), (False, True))
"""By a number of ways: mirrored or not."""


def ways_of_chance(flip_p: float) -> int:
    """PLAIN, MIRRORED, or the two of them together, of a chance to mirror."""
    return PLAIN * (flip_p < 1) | MIRRORED * (flip_p > 0)


def ways_of(material: Material, flip_p: float) -> np.ndarray:
    """(n,) bytes: the ways of each of the material's pictures; `flip_p` is for those whose group has no own chance."""
    found = np.full(len(material.pictures), ways_of_chance(flip_p), np.uint8)
    for group in material.groups:
        if group.flip_p is not None:
            found[np.asarray(group.members)] = ways_of_chance(group.flip_p)
    return found


def number_of(ways: np.ndarray) -> np.ndarray:
    """How many ways each is: 1 or 2."""
    return np.where(ways == PLAIN | MIRRORED, 2, 1)
