"""Random checkpoints of published size to measure with."""
from __future__ import annotations

import math
from pathlib import Path

import torch

from lib_sdtrain.model.build import empty_modules
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.model.writer import CheckpointWriter


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape in a checkpoint of the family."""
    family = PUBLISHED[name]
    modules, shapes = empty_modules(family), {}
    for part, rows in part_rows(family).items():
        state = modules[part].state_dict()
        for row in rows:
            first = tuple(state[row.names[0]].shape)
            whole = (first[0] * len(row.names), *first[1:])
            shapes[row.key] = whole[::-1] if row.transposed else whole
    return shapes


def write_model(path: Path, name: str, seed: int) -> None:
    """A random fp16 checkpoint of the published size of a family, fit to be trained: activations keep their size."""
    pool = torch.randn(2**22, generator=torch.Generator().manual_seed(seed))
    shapes = published_shapes(name)
    with CheckpointWriter(path, {key: (torch.float16, shape) for key, shape in shapes.items()}, {}) as writer:
        for number, key in enumerate(writer.keys):
            shape, (middle, spread) = shapes[key], _distribution(key, shapes[key])
            count = math.prod(shape)
            values = (pool.roll(number * 997) * spread + middle).half()
            writer.write(key, values.repeat(math.ceil(count / len(pool)))[:count].reshape(shape))


def _distribution(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation: a layer's by its inputs (LeCun et al. 1998), near 1 for norms, near 0 for biases."""
    if len(shape) >= 2:
        return 0.0, 1 / math.sqrt(math.prod(shape[1:]))
    return (1.0, 0.1) if key.endswith("weight") else (0.0, 0.02)
