"""Hashing a file while it is written."""
from __future__ import annotations

import hashlib
import threading
from pathlib import Path

_BLOCK = 2**20


class Follower:
    """Hashes a growing file in a thread of its own, reading behind the writer from the page cache.

    Reading the file rather than the caller's memory means that a tensor may be changed as soon as
    `write` returns, and that the digest is that of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._ready = 0
        self._closed = self._stopped = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def advance(self, ready: int) -> None:
        """The file's first `ready` bytes are final."""
        with self._changed:
            self._ready = ready
            self._changed.notify()

    def finish(self) -> str:
        """Wait for the end and give the digest (hex)."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def stop(self) -> None:
        """Give up; returns when the file is no longer open here."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow()
        except OSError as error:
            self._error = error

    def _follow(self) -> None:
        done, buffer = 0, bytearray(_BLOCK)
        view = memoryview(buffer)
        with self._path.open("rb", buffering=0) as file:
            while (ready := self._wait(done)) is not None:
                while done < ready and not self._stopped:
                    count = file.readinto(view[: min(_BLOCK, ready - done)])
                    if not count:
                        raise OSError(f"{self._path} became shorter while it was written")
                    self._digest.update(view[:count])
                    done += count

    def _wait(self, done: int) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready > done or self._closed or self._stopped)
            return None if self._stopped or self._ready <= done else self._ready
