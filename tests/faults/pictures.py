"""A few different small pictures."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(folder: Path, count: int = 3) -> Path:
    """The folder, with `count` PNG files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        small = np.random.default_rng(index).integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder
