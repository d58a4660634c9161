"""A disk that runs full pauses a run: it says so, waits, and goes on by itself when there is room."""
from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

from lib_sdtrain.events import CancelToken, Event, Notice, Phase
from lib_sdtrain.model.space import DiskFullError, free_bytes, is_full

T = TypeVar("T")

WAITING = "waiting for room on the disk"
POLL_SECONDS = 1.0
LEAST = 2**20  # bytes to wait for where the error does not tell how many are needed
_MB = 10**6


def with_room(write: Callable[[], T], folder: Path, token: CancelToken) -> Generator[Event, None, T]:
    """The result of `write`, which is called again and again until the disk of `folder` takes it.

    Waiting ends when the user wants to stop at once: the error is raised then.
    """
    while True:
        try:
            return write()
        except OSError as error:
            if not is_full(error) or token.stopping_now:
                raise
            needed = error.needed if isinstance(error, DiskFullError) else LEAST
            yield Notice(
                text=f"paused: the disk is full, {needed / _MB:,.1f} MB are needed; training goes on by itself when "
                "there is room", where=str(folder),
            )  # fmt: skip
            yield from _wait(folder, max(needed, LEAST), token)


def _wait(folder: Path, needed: int, token: CancelToken) -> Iterator[Event]:
    while not token.stopping_now and (free := free_bytes(folder)) < needed:
        yield Phase(name=WAITING, done=free // _MB, total=-(-needed // _MB), unit="MB")
        time.sleep(POLL_SECONDS)
