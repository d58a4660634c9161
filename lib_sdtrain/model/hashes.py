"""The hashes by which the WebUI and its users know a model file, and a cache of them."""
from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib_sdtrain.durable import write_atomically

Progress = Callable[[int, int], None]

_BLOCK = 2**20
_LEGACY_OFFSET, _LEGACY_LENGTH = 0x100000, 0x10000
_LENGTH_BYTES = 8


def sha256(path: str | Path, progress: Progress | None = None, skip: int = 0) -> str:
    """SHA-256 (hex) of a file from byte `skip` on.

    `progress(done, total)` is called after every MiB and may raise to stop.
    """
    path = Path(path)
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK)
    view, done = memoryview(buffer), skip
    total = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        file.seek(skip)
        while count := file.readinto(buffer):
            digest.update(view[:count])
            done += count
            if progress:
                progress(done, total)
    return digest.hexdigest()


def autov2(digest: str) -> str:
    """The hash that the WebUI shows beside a checkpoint's name: the first 10 hex digits of its SHA-256."""
    return digest[:10]


def legacy_hash(path: str | Path) -> str:
    """The WebUI's old 8-digit hash: SHA-256 of 64 KiB at offset 1 MiB. Files that agree there share it."""
    with Path(path).open("rb") as file:
        file.seek(_LEGACY_OFFSET)
        return hashlib.sha256(file.read(_LEGACY_LENGTH)).hexdigest()[:8]


def addnet_hash(path: str | Path, progress: Progress | None = None) -> str:
    """SHA-256 (hex) of a safetensors file's bytes after its header.

    The WebUI and kohya's scripts know a LoRA by its first 12 digits (`sshs_model_hash`): editing the
    metadata does not change it.
    """
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    return sha256(path, progress, skip=_LENGTH_BYTES + length)


def model_digest(path: str | Path, cache: HashCache | None = None, progress: Progress | None = None) -> str:
    """SHA-256 (hex) that stands for a model: of a file, its own.

    Of a folder, that of the lines `sha256sum` would print for its weight files, sorted by name.
    """
    path = Path(path)
    take = cache.sha256 if cache else sha256
    if path.is_file():
        return take(path, progress)
    files = sorted(file for file in path.rglob("*") if file.suffix in {".safetensors", ".bin"})
    lines = "".join(f"{take(file, progress)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


class HashCache:
    """SHA-256 digests kept in a JSON file, valid while path, size and modification time stay the same.

    Safe with several threads and processes: the file is replaced whole, after taking in what others
    wrote meanwhile; a damaged or missing file, or one that cannot be written, only means that digests are
    computed again.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = Path(location)
        self._lock = threading.Lock()

    def sha256(self, path: str | Path, progress: Progress | None = None) -> str:
        """The digest of a file, from the cache where it is still valid."""
        before = _state(Path(path))
        known = self.get(path)
        if known is None:
            known = sha256(path, progress)
            if _state(Path(path)) == before:
                self.put(path, known)
        return known

    def get(self, path: str | Path) -> str | None:
        """The cached digest, or None when there is none for the file as it is now."""
        entry = self._read().get(_name(path))
        return entry["sha256"] if entry and {**entry, **_state(Path(path))} == entry else None

    def put(self, path: str | Path, digest: str) -> None:
        """Remember the digest of a file as it is now (the writer computes it while writing)."""
        with self._lock:
            table = self._read()
            table[_name(path)] = {**_state(Path(path)), "sha256": digest}
            kept = {name: table[name] for name in sorted(table)}
            with suppress(OSError):  # a home that cannot be written to, or a full disk
                self.location.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.location, json.dumps(kept, indent=1).encode())

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            table = json.loads(self.location.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        entries = table.items() if isinstance(table, dict) else ()
        return {name: entry for name, entry in entries if _is_entry(entry)}


def user_cache() -> HashCache:
    """The cache of the user of this machine, for hosts that have none of their own."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return HashCache(Path(home) / "sdtrain" / "hashes.json")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"size", "mtime_ns", "sha256"} and isinstance(entry["sha256"], str)


def _name(path: str | Path) -> str:
    return str(Path(path).resolve())


def _state(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
