"""Killing a process (SIGKILL: nothing can be tidied up) after a while, or at its n-th change of the file system."""
from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.faults.work import Work

_CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link"})
_WRITING = os.O_WRONLY | os.O_RDWR
_NEVER = 0

_processes = multiprocessing.get_context("forkserver")
# torch is imported once, in the server that every victim is forked from
_processes.set_forkserver_preload(
    ["lib_sdtrain.train.loop", "lib_sdtrain.merge.engine", "diffusers", "tests.faults.work"]
)


def run(work: Work, folder: Path, *, seconds: float | None = None, change: int = _NEVER) -> int | None:
    """Let the work go on, and kill it after `seconds`, or at change number `change` (from 1) below `folder`.

    The changes that it made when it came to its end, None when it was killed. Raises `AssertionError` with its
    traceback when it failed by itself.
    """
    ours, theirs = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_victim, args=(work, str(folder), change, theirs))
    process.start()
    theirs.close()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    said: Any = None
    if ours.poll():
        try:
            said = ours.recv()
        except (EOFError, OSError):
            said = None
    ours.close()
    if isinstance(said, str):
        raise AssertionError(said)
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(f"the process ended with {process.exitcode}")
    return said


def _victim(work: Work, folder: str, change: int, pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)
    counter = _Counter(folder, change)
    sys.addaudithook(counter)
    try:
        for _ in work.events():
            pass
        counter.watching = False
        pipe.send(counter.count)
    except BaseException:  # noqa: BLE001 - told in the parent, as a failure of the test
        pipe.send(traceback.format_exc())


class _Counter:
    """An audit hook that counts what changes files below a folder, and kills its own process before one of them."""

    def __init__(self, folder: str, last: int) -> None:
        self.folder, self.last, self.count, self.watching = folder, last, 0, True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching or not self._changes(event, arguments):
            return
        self.count += 1
        if self.last and self.count >= self.last:  # states are written in a thread: two may count at once
            os.kill(os.getpid(), signal.SIGKILL)

    def _changes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and bool(flags & _WRITING)
            return writes and isinstance(path, (str, bytes, os.PathLike)) and self._below(path)
        return event in _CHANGES and self._below(arguments[0])

    def _below(self, path: Any) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(self.folder)
