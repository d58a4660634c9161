"""Checkpoints of published size that take no room: a true header, and zeros that no disk holds."""
from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from lib_sdtrain.merge.bench.models import published_shapes


def write_hollow(path: Path, name: str) -> Path:
    """A checkpoint of a family (sd1, sd2, sdxl) in fp16 that can be opened and planned with, not trained."""
    header, end = {}, 0
    for key, shape in published_shapes(name).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path
