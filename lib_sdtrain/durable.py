"""Files that are the old one or the new one, never half of either. Standard library only."""
from __future__ import annotations

import os
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk (folders cannot be flushed on Windows)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside under a temporary name, flush, rename. On failure the target is as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def safe_name(text: str) -> str:
    """A file name stem from a user's text: letters, digits, `-`, `_` and `.`, at most 80, never empty or hidden."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-. ")
    return kept[:80].rstrip("-. ") or "model"
