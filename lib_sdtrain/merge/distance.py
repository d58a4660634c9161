"""How far apart two checkpoints are, by block and kind of layer: where a merge will change something.

The distance of a group of tensors is |B - A| over the root mean square of |A| and |B|, the norms taken over
all its values: 0 where the models are equal, sqrt(2) where they have nothing in common, 2 where one is the
other's negative. It does not matter which is A. Computed in small pieces of fp32 that stay in the processor's
cache, their sums added up in double precision.
"""
from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started
from lib_sdtrain.merge.blocks import KEEP, LAYOUTS, block_of
from lib_sdtrain.merge.elements import layer_kind
from lib_sdtrain.merge.workers import workers
from lib_sdtrain.model.checkpoint import Checkpoint, open_checkpoint

_PIECE = 2**17
_AHEAD = 32
_MOST_THREADS = 4
_TELL_EVERY = 0.2


@dataclass
class Sums:
    """Running sums of a group: squares of A, of B and of B - A, A times B, the largest difference, the count."""

    a: float = 0.0
    b: float = 0.0
    difference: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    count: int = 0

    def add(self, other: Sums) -> None:
        """Take in another group."""
        self.a += other.a
        self.b += other.b
        self.difference += other.difference
        self.product += other.product
        self.largest = max(self.largest, other.largest)
        self.count += other.count

    def as_dict(self) -> dict[str, float]:
        """`distance`, `cosine` of A and B, `largest` single difference, `weights` counted."""
        size = (self.a + self.b) / 2
        distance = math.sqrt(self.difference / size) if size else 0.0
        sizes = math.sqrt(self.a * self.b)
        cosine = self.product / sizes if sizes else float(self.difference == 0)
        return {"distance": distance, "cosine": cosine, "largest": self.largest, "weights": self.count}


@dataclass
class Distances:
    """Sums by block, by (block, kind of layer) and by tensor."""

    blocks: dict[str, Sums] = field(default_factory=dict)
    cells: dict[tuple[str, str], Sums] = field(default_factory=dict)
    tensors: dict[str, Sums] = field(default_factory=dict)

    def add(self, key: str, block: str, sums: Sums) -> None:
        """Count one tensor."""
        self.tensors[key] = sums
        self.blocks.setdefault(block, Sums()).add(sums)
        self.cells.setdefault((block, layer_kind(key)), Sums()).add(sums)

    def as_dict(self, names: tuple[str, ...]) -> dict[str, object]:
        """JSON-ready: `blocks`, `layers` (block -> kind -> numbers) in the order of `names`, and `tensors`."""
        layers: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names if name in self.blocks}
        for (block, kind), sums in self.cells.items():
            layers[block][kind] = sums.as_dict()
        return {
            "blocks": {name: self.blocks[name].as_dict() for name in names if name in self.blocks},
            "layers": layers,
            "tensors": {key: sums.as_dict() for key, sums in self.tensors.items()},
        }


def measure(a: Tensor, b: Tensor) -> Sums:
    """The sums of two tensors of one shape."""
    total = Sums()
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.numel(), _PIECE):
        x, y = (flat[start : start + _PIECE].float() for flat in (flat_a, flat_b))
        apart = y - x
        low, high = torch.aminmax(apart)
        total.add(
            Sums(
                torch.dot(x, x).item(), torch.dot(y, y).item(), torch.dot(apart, apart).item(), torch.dot(x, y).item(),
                max(-low.item(), high.item()), x.numel(),
            )
        )  # fmt: skip
    return total


def compare(a: str | Path, b: str | Path, token: CancelToken, convention: str = "mbw") -> Iterator[Event]:
    """Compare two checkpoints; ends with `Finished` and the document of `Distances.as_dict`.

    Tensors that only one has, and those that are never merged, are not counted. Raises `UserError` when
    the models are of different families, `Cancelled` when the user stops it.
    """
    began = told = time.monotonic()
    with ExitStack() as stack:
        first, second = (open_checkpoint(path) for path in (a, b))
        for model in (first, second):
            stack.enter_context(model.tensors)
        if first.family.name != second.family.name:
            raise UserError(f"{second.path.name} is {second.family.name}, {first.path.name} is {first.family.name}",
                            fix="only models of one family can be compared")
        layout = LAYOUTS[first.family.name]
        keys = _common(first, second)
        yield Started(job="compare", total=len(keys))
        blocks = {key: block_of(key, layout, convention) for key in keys}
        distances = Distances()
        merged = [key for key in keys if blocks[key] != KEEP]
        for done, (key, sums) in enumerate(_measured(first, second, merged), start=1):
            token.check()
            distances.add(key, blocks[key], sums)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                yield Phase(name="comparing", done=done, total=len(merged), unit="tensors")
    seconds = round(time.monotonic() - began, 3)
    yield Finished(result={**distances.as_dict(layout.names), "seconds": seconds})


def _measured(first: Checkpoint, second: Checkpoint, keys: list[str]) -> Iterator[tuple[str, Sums]]:
    """Key and sums in order, measured a little ahead by several threads."""
    waiting: deque[tuple[str, Future[Sums]]] = deque()
    with workers(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        for key in keys:
            waiting.append((key, pool.submit(lambda key=key: measure(first.tensor(key), second.tensor(key)))))
            if len(waiting) > _AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _common(first: Checkpoint, second: Checkpoint) -> list[str]:
    return [
        key for key in first.file_keys
        if key in second.file_keys and first.shape(key) == second.shape(key)
        and first.tensors.dtype(first.file_keys[key]).is_floating_point
    ]  # fmt: skip
