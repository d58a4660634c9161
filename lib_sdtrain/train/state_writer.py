"""Writing states while training goes on: a copy is taken at once, the disk is waited for in a thread."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.model.space import require_space
from lib_sdtrain.train.spare_memory import spare_memory
from lib_sdtrain.train.state import State, save_state, state_bytes

SPARE = 1.1  # of a copy's size must be free: training itself needs some


class StateWriter:
    """Writes states below `folder`, one at a time: `begin`, then `finish`, which tells when it stands.

    The copy lies in main memory, is as large as the state (of AdamW three times the trained weights in fp32) and is
    used again for the next one. `close` waits for what is being written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sdtrain-state")
        self._copies: dict[str, Tensor] = {}
        self._held: tuple[int, State] | None = None
        self._job: Future[Path] | None = None

    @property
    def pending(self) -> int | None:
        """The step of the state that was begun and is not finished."""
        return self._held[0] if self._held else None

    @property
    def settled(self) -> bool:
        """Whether the thread is done with it, well or not: `finish` will not wait."""
        return self._job is None or self._job.done()

    def can_copy(self, state: State) -> bool:
        """Whether main memory takes a copy of the state."""
        new = sum(value.nbytes for name, value in state.tensors.items() if not self._fits(name, value))
        return new == 0 or spare_memory() >= new * SPARE

    def begin(self, step: int, state: State, *, copy: bool) -> None:
        """Start writing. Without `copy` the state must stay as it is until `finish` has returned.

        Raises `DiskFullError` before anything is done when the state does not fit on the disk.
        """
        require_space(self.folder / f"{step:06d}", state_bytes(state))
        if copy:
            state = State(state.facts, {name: self._copy(name, value) for name, value in state.tensors.items()})
        self._held = step, state
        self._job = self._write()

    def finish(self) -> Path:
        """Wait until the state stands, and give its folder.

        Raises what kept it from being written; called again, it is tried again from the same copy.
        """
        job, self._job = self._job or self._write(), None
        folder = job.result()
        self._held = None
        return folder

    def close(self) -> None:
        """Wait for the thread; the writer must not be used again."""
        self._pool.shutdown()
        self._copies.clear()
        self._held = self._job = None

    def _write(self) -> Future[Path]:
        step, state = self._held
        return self._pool.submit(save_state, self.folder, step, state)

    def _fits(self, name: str, value: Tensor) -> bool:
        there = self._copies.get(name)
        return there is not None and (there.dtype, there.shape) == (value.dtype, value.shape)

    def _copy(self, name: str, value: Tensor) -> Tensor:
        if not self._fits(name, value):
            self._copies[name] = torch.empty(value.shape, dtype=value.dtype)
        return self._copies[name].copy_(value.detach())
