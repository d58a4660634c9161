"""How much memory a computation takes at its worst moments, told without doing it.

It is played through on torch's meta device, where tensors have shapes and no values. Each one's bytes count from when
it is made until nothing holds it any more. What is held grows with the batch and with batch times pixels, so that three
plays of different size tell every other size.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Moment(NamedTuple):
    """Bytes at one moment: `fixed` + `sample` * batch + `pixel` * batch * latent pixels of each."""

    fixed: int
    sample: int
    pixel: int

    def bytes(self, batch: int, pixels: int) -> int:
        """Of a batch of pictures of so many latent pixels."""
        return self.fixed + (self.sample + self.pixel * pixels) * batch


Play = Callable[[int, int], None]
"""Does the computation for a batch of square pictures with so many latent pixels a side."""

SIDES, BATCHES = (16, 32), (2, 3)  # of a single sample torch takes other ways
ASKED = [(batch, side * side) for batch in (1, 2, 4, 8, 16, 32) for side in (8, 16, 32, 64, 96, 128, 192)]


def peak(moments: Iterable[Moment], batch: int, pixels: int) -> int:
    """Bytes at the worst of the moments."""
    return max(moment.bytes(batch, pixels) for moment in moments)


def worst_moments(play: Play, known: Sequence[torch.Tensor]) -> list[Moment]:
    """The moments of which one is the worst, whatever the batch and size. `known` tensors are not counted.

    Raises `ValueError` when the computation takes other steps at another size.
    """
    (side, larger), (batch, more) = SIDES, BATCHES
    small, wide, many = (_held(play, known, *size) for size in ((batch, side), (batch, larger), (more, side)))
    if not len(small) == len(wide) == len(many):
        message = "the computation takes other steps at another size"
        raise ValueError(message)
    moments = set()
    for one, two, three in zip(small, wide, many, strict=True):
        pixel = (two - one) / (batch * (larger**2 - side**2))
        sample = (three - one) / (more - batch) - pixel * side**2
        moments.add(Moment(*map(round, (one - batch * (sample + pixel * side**2), sample, pixel))))
    return sorted({max(moments, key=lambda moment: moment.bytes(*size)) for size in ASKED})


def _held(play: Play, known: Sequence[torch.Tensor], batch: int, side: int) -> list[int]:
    """The bytes that are held after each operation."""
    with _Count(known) as count:
        play(batch, side)
    return count.held


class _Count(TorchDispatchMode):
    """Follows the storages that operations make until they are freed.

    Before torch 2.2, which the WebUI comes with, a storage's Python object may go before it: each is asked whether it
    is still there, which takes longer.
    """

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.held: list[int] = []
        self._now, self._sizes = 0, {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self._asked: dict[int, StorageWeakRef] | None = None if _objects_stay() else {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for key in [key for key, storage in (self._asked or {}).items() if storage.expired()]:
            del self._asked[key]
            self._gone(key)
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        self.held.append(self._now)
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._now += storage.nbytes()
        if self._asked is None:
            weakref.finalize(storage, self._gone, key)
        else:
            self._asked[key] = StorageWeakRef(storage)

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)


def _objects_stay() -> bool:
    """Whether a storage has one Python object as long as it lives."""
    tensor = torch.empty(1)
    return tensor.untyped_storage() is tensor.untyped_storage()
