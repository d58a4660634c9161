"""The hashes of a merge's models, computed while other things are being prepared.

Standard library only: hashing starts before torch is imported, on the cores that the import leaves idle.
"""
from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lib_sdtrain.errors import Cancelled
from lib_sdtrain.model.hashes import HashCache, model_digest
from lib_sdtrain.places import is_file

if TYPE_CHECKING:
    from typing_extensions import Self

    from lib_sdtrain.settings.merge import MergeSettings

_THREADS = 2


class ParentHashes:
    """SHA-256 of files, ahead of need. A context manager; leaving it stops what is still running."""

    def __init__(self, cache: HashCache | None = None) -> None:
        self._cache = cache
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hash")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._jobs: dict[Path, Future[str]] = {}
        self._done: dict[Path, int] = {}

    def start(self, paths: Iterable[Path]) -> None:
        """Begin to hash these files."""
        with self._lock:
            for path in paths:
                if path not in self._jobs:
                    self._jobs[path] = self._pool.submit(self._digest, path)

    def get(self, path: Path, timeout: float | None = None) -> str:
        """The digest (hex) of a file. Raises `TimeoutError` when it takes longer than `timeout` seconds."""
        self.start([path])
        job = self._jobs[path]
        if not wait([job], timeout).done:
            raise TimeoutError
        return job.result()

    @property
    def bytes_done(self) -> int:
        """Bytes hashed so far."""
        return sum(self._done.values())

    def _digest(self, path: Path) -> str:
        def progress(done: int, total: int) -> None:
            del total
            self._done[path] = done
            if self._stop.is_set():
                raise Cancelled

        return model_digest(path, self._cache, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


def files_named(settings: MergeSettings) -> list[Path]:
    """The files that a merge names outright (not by the name of an embedded checkpoint), as far as they exist."""
    names = [settings.a, settings.b, settings.c, *settings.model, settings.vae]
    paths = [Path(name).expanduser() for name in names if name]
    return [path for path in dict.fromkeys(paths) if is_file(path)]
