"""Files that appear whole or not at all: temporary name beside the target, fsync, rename. Standard library only."""
from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

_STALE_SECONDS = 24 * 3600


def temporary_beside(target: Path) -> Path:
    """A fresh hidden name in the target's folder: on the same file system, so that a rename is atomic."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_stale(target: Path) -> None:
    """Remove what killed writers of this target left beside it more than a day ago."""
    pattern = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in target.name)
    for left in target.parent.glob(f".{pattern}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may be as quick
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(target: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part."""
    temporary = temporary_beside(target)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
