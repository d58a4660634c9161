"""Files that are the old one or the new one, never half of either. Standard library only."""
from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from pathlib import Path

_STALE_SECONDS = 24 * 3600
_BEGIN_BYTES = 200


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk (folders cannot be flushed on Windows)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_beside(target: Path) -> Path:
    """A fresh hidden name in the target's folder, on the same file system so that a rename is atomic."""
    return target.with_name(f".{_begin(target)}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _begin(target: Path) -> str:
    """As much of the target's name as leaves room behind it: names end at 255 bytes."""
    return target.name.encode(errors="surrogateescape")[:_BEGIN_BYTES].decode(errors="ignore")


def remove_stale(target: Path) -> None:
    """Remove what killed writers of this target left behind more than a day ago."""
    for left in target.parent.glob(f".{glob.escape(_begin(target))}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may be as quick
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside under a temporary name, flush, rename. On failure the target is as it was."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def safe_name(text: str) -> str:
    """A file name stem from a user's text: letters, digits, `-`, `_` and `.`, never empty or hidden.

    At most 80 characters and 160 bytes: steps and suffixes fit behind it.
    """
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-. ")[:80]
    return kept.encode()[:160].decode(errors="ignore").rstrip("-. ") or "model"
