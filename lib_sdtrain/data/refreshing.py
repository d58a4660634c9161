"""New crops of the pictures, encoded while training goes on with the former ones."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain

from lib_sdtrain.data.draws import Draw, Draws
from lib_sdtrain.data.latents import Latents


class Refresher:
    """Has the latents of the crops that come next ready in time, and forgets those that were. A run of `samples`.

    What is not ready when it is needed is encoded then: training sees the same crops either way. `draws` are this
    object's own, since a thread uses them.
    """

    def __init__(self, latents: Latents, draws: Draws, samples: int) -> None:
        self.latents, self.draws, self.samples = latents, draws, samples
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sdtrain-crops")
        self._stopping = threading.Event()
        self._at: int | None = None
        self._work: Future[None] | None = None

    def follow(self, sample: int) -> None:
        """Training has come to this sample. Raises what the thread met: `UserError` for a picture that has changed."""
        if self._work is not None and self._work.done():
            self._work.result()
        now = self.draws.refreshed(sample)
        if now == self._at or not self.draws.refresh_every or self.latents.data.cache_latents == "none":
            return
        self._stop()
        self._at, self._stopping = now, threading.Event()
        self._work = self._pool.submit(self._encode, now, self._stopping)

    def close(self) -> None:
        """Encode nothing more; returns when the picture at hand is done."""
        self._stop()
        self._pool.shutdown()

    def _stop(self) -> None:
        self._stopping.set()
        if self._work is not None:
            wait([self._work])

    def _encode(self, now: int, stopping: threading.Event) -> None:
        if now:
            self.latents.forget(_until(stopping, self.draws.all_forms(now - 1)))
        rest = self.draws.all_forms(now)
        following = self.draws.all_forms(now + 1) if (now + 1) * self.draws.refresh_every < self.samples else ()
        for draw in _until(stopping, chain(rest, following)):
            with self.latents.undisturbed:
                if not stopping.is_set():
                    self.latents.make(draw)


def _until(stopping: threading.Event, draws: Iterator[Draw]) -> Iterator[Draw]:
    for draw in draws:
        if stopping.is_set():
            return
        yield draw
