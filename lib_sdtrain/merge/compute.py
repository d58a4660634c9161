"""Computing the steps of a plan: whole tensors for a live merge, pieces for a file.

Nothing here writes, and nothing keeps more than a few tensors. Pieces do not change results: the methods
that are computed in pieces work element by element, without fused operations, so that piece borders,
threads and processors make no difference.
"""
from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.merge.inputs import Inputs
from lib_sdtrain.merge.plan import MergePlan, Source, Step
from lib_sdtrain.model.mapped import tensor_bytes

PIECE = 2**20
_STRIDE = 2**17  # what is computed at once: the temporaries of a formula then stay in the processor's cache


@dataclass(frozen=True)
class Piece:
    """Elements [start, stop) of the flattened result of a step (the whole tensor where it cannot be cut)."""

    step: Step
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of the piece in the result."""
        return (self.stop - self.start) * self.step.dtype.itemsize


def _count(step: Step) -> int:
    return step.nbytes // step.dtype.itemsize


class _Scratch(threading.local):
    """fp32 buffers of each thread, kept: asking the system for memory again and again takes longer than the sums."""

    def __init__(self) -> None:
        self.buffers: list[Tensor] = []

    def copies(self, parts: list[Tensor]) -> list[Tensor]:
        """The parts in fp32, in buffers that are overwritten by the next call."""
        while len(self.buffers) < len(parts):
            self.buffers.append(torch.empty(_STRIDE))
        return [buffer[: len(part)].copy_(part) for buffer, part in zip(self.buffers, parts, strict=False)]


@dataclass
class Computer:
    """Computes steps of `plan` from `inputs`.

    `span` is the method's surveyed (low, high), where it has one. `not_finite` gathers the keys of results
    with values that are infinite, no number, or too large for the number format.
    """

    inputs: Inputs
    plan: MergePlan
    span: tuple[float, float] | None = None
    low_precision: bool = field(init=False)
    not_finite: set[str] = field(default_factory=set)
    _scratch: _Scratch = field(init=False)

    def __post_init__(self) -> None:
        self.low_precision = self.plan.arithmetic == "fp16"
        self._scratch = _Scratch()

    def tensor(self, step: Step) -> Tensor:
        """The whole result of a step. Copies share memory with the file's map: do not write to them."""
        if step.copied:
            return self._load(step.sources[0]).to(step.dtype)
        if not self._cuttable(step):
            return self._whole(step)
        result = torch.empty(step.shape, dtype=step.dtype)
        flat = result.view(-1)
        for piece in self.pieces(step):
            self._fill(piece, flat[piece.start : piece.stop])
        return result

    def pieces(self, step: Step) -> Iterator[Piece]:
        """The pieces of a step in order."""
        count = _count(step)
        cut = step.copied or self._cuttable(step)
        size = PIECE if cut else max(count, 1)
        for start in range(0, max(count, 1), size):
            yield Piece(step, start, min(start + size, count))

    def piece_bytes(self, piece: Piece, room: Tensor | None = None) -> memoryview:
        """The bytes of a piece in the result: a view of the file where they are copied unchanged.

        `room` are bytes that may be used for the result, which is then valid until they are used again.
        """
        step = piece.step
        if step.copied:
            part = self._load(step.sources[0]).view(-1)[piece.start : piece.stop]
            return tensor_bytes(part if part.dtype == step.dtype else self._checked(step, part.to(step.dtype)))
        if not self._cuttable(step):
            return tensor_bytes(self._checked(step, self._whole(step)))
        if room is None or len(room) < piece.nbytes:
            room = torch.empty(piece.nbytes, dtype=torch.uint8)
        result = room[: piece.nbytes].view(step.dtype)
        self._fill(piece, result)
        return tensor_bytes(self._checked(step, result))

    def _checked(self, step: Step, result: Tensor) -> Tensor:
        if result.numel() and result.is_floating_point():
            coarse = result.dtype.itemsize == 1  # fp8_e4m3 has no infinity: what is too large becomes its maximum
            limit = torch.finfo(result.dtype).max if coarse else math.inf
            if not all(abs(end.item()) < limit for end in torch.aminmax(_comparable(result))):
                self.not_finite.add(step.key)
        return result

    def _cuttable(self, step: Step) -> bool:
        plain = not step.loras and step.adjustment is None and step.channels is None
        return plain and (step.method is None or self.plan.method.elementwise)

    def _load(self, source: Source) -> Tensor:
        if source.role == "vae":
            return self.inputs.vae.tensor(source.key)
        return self.inputs.models[source.role].tensors.tensor(source.key)

    def _fill(self, piece: Piece, result: Tensor) -> None:
        flat = [self._load(source).view(-1) for source in piece.step.sources]
        keywords = self._keywords(piece.step)
        in_place = None if self.low_precision else self.plan.method.in_place
        for start in range(piece.start, piece.stop, _STRIDE):
            parts = [tensor[start : min(start + _STRIDE, piece.stop)] for tensor in flat]
            if in_place is not None:
                values = in_place(*self._scratch.copies(parts), **keywords)
            else:
                values = self.plan.method.function(*map(self._widened, parts), **keywords)
            result[start - piece.start :][: len(values)].copy_(values)

    def _whole(self, step: Step) -> Tensor:
        tensors = [self._load(source) for source in step.sources]
        merged = tensors[0] if step.method is None else self._merged(step, tensors)
        for role, weight in step.loras:
            lora = self.inputs.loras[int(role.removeprefix("lora")) - 1].lora
            canonical = _canonical(lora.changes, step)
            merged = merged.float() + weight * lora.delta(canonical, step.shape)
        if step.adjustment is not None:
            merged = step.adjustment.apply(self._widened(merged))
        return merged.to(step.dtype)

    def _merged(self, step: Step, tensors: list[Tensor]) -> Tensor:
        first = tensors[0]
        if step.channels is not None:
            tensors = [tensor[:, : step.channels] for tensor in tensors]
        shape = tensors[0].shape
        given = [self._widened(tensor if tensor.dim() else tensor.view(1)) for tensor in tensors]
        merged = self.plan.method.function(*given, **self._keywords(step)).reshape(shape)
        if step.channels is None:
            return merged
        return torch.cat([merged, first[:, step.channels :].to(merged.dtype)], dim=1)

    def _widened(self, tensor: Tensor) -> Tensor:
        """In fp32, or as stored when repeating half-precision merges (fp8 knows no arithmetic: fp16 then)."""
        if not self.low_precision:
            return tensor.float()
        return tensor.half() if tensor.dtype.itemsize == 1 else tensor

    def _keywords(self, step: Step) -> dict[str, Any]:
        values: dict[str, Any] = {"alpha": step.alpha, "beta": step.beta, **dict(step.params)}
        if self.span is not None:
            values["low"], values["high"] = self.span
        if "generator" in self.plan.method.params:
            values["generator"] = _generator(values.pop("seed"), step.key)
        return {name: values[name] for name in self.plan.method.params}


def _comparable(values: Tensor) -> Tensor:
    """The same values in a number format whose ends torch finds: 8 bits in 16, and 16 bits where it is of old."""
    if values.dtype.itemsize == 1:
        return values.bfloat16()
    return values if values.dtype != torch.float16 or _finds_ends_of_half() else values.float()


@lru_cache(maxsize=1)
def _finds_ends_of_half() -> bool:
    """Whether this torch does: the one that the WebUI comes with, 2.1, does not."""
    try:
        torch.aminmax(torch.zeros(1, dtype=torch.float16))
    except RuntimeError:
        return False
    return True


def _canonical(changes: Any, step: Step) -> str:
    from lib_sdtrain.model.checkpoint import canonical_key

    return step.key if step.key in changes else canonical_key(step.key)


def _generator(seed: int, key: str) -> torch.Generator:
    """A generator for one tensor: the same whatever order tensors are computed in."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def survey_span(values: Tensor) -> tuple[float, float]:
    """Smallest and largest of the similarities, without the lowest and then the highest percent.

    Percentiles are the mean of the two nearest values, as in SuperMerger.
    """
    import numpy as np

    finite = values[~values.isnan()].double().numpy()
    if not finite.size:
        return 0.0, 0.0
    finite = finite[finite >= np.percentile(finite, 1, method="midpoint")]
    finite = finite[finite <= np.percentile(finite, 99, method="midpoint")]
    return float(finite.min()), float(finite.max())
