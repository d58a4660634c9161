"""New crops of the pictures, encoded while training goes on with the former ones."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain

from lib_sdtrain.data.draws import Draw, Draws
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.errors import UserError


class Refresher:
    """Has the latents of the crops that come next ready in time, and forgets those that were. A run of `samples`.

    What is not ready when it is needed is encoded then: training sees the same crops either way. `draws` are this
    object's own, since a thread uses them.
    """

    def __init__(self, latents: Latents, draws: Draws, samples: int) -> None:
        self.latents, self.draws, self.samples = latents, draws, samples
        self._stopping, self._worker = threading.Event(), threading.Thread()
        self._at: int | None = None
        self._failure: UserError | None = None

    def follow(self, sample: int) -> None:
        """Training has come to this sample. Raises `UserError` when a picture is no longer what was scanned."""
        if self._failure:
            raise self._failure
        now = self.draws.refreshed(sample)
        if now == self._at or not self.draws.refresh_every or self.latents.data.cache_latents == "none":
            return
        self.close()
        self._at, self._stopping = now, threading.Event()
        self._worker = threading.Thread(
            target=self._work, args=(now, self._stopping), name="sdtrain-crops", daemon=True
        )
        self._worker.start()

    def close(self) -> None:
        """Encode nothing more; returns when the picture at hand is done."""
        self._stopping.set()
        if self._worker.is_alive():
            self._worker.join()

    def _work(self, now: int, stopping: threading.Event) -> None:
        try:
            if now:
                self.latents.forget(self._until(stopping, self.draws.all_forms(now - 1)))
            rest = self.draws.all_forms(now)
            following = self.draws.all_forms(now + 1) if (now + 1) * self.draws.refresh_every < self.samples else ()
            for draw in self._until(stopping, chain(rest, following)):
                self.latents.make(draw)
        except UserError as error:
            self._failure = error

    @staticmethod
    def _until(stopping: threading.Event, draws: Iterator[Draw]) -> Iterator[Draw]:
        for draw in draws:
            if stopping.is_set():
                return
            yield draw
