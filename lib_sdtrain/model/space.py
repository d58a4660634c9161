"""Disk space: checked before heavy work, and named when it runs out all the same."""
from __future__ import annotations

import errno
import shutil
from pathlib import Path

from lib_sdtrain.errors import UserError
from lib_sdtrain.places import exists

_FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskFullError(OSError):
    """The disk ran full while a file was written; the message names the bytes needed (`needed`) and free."""

    needed: int = 0


def free_bytes(folder: Path) -> int:
    """Bytes that a user may still write in `folder`, or in its nearest existing parent."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if exists(parent))
    return shutil.disk_usage(existing).free


def check_space(target: str | Path, needed: int) -> None:
    """Raise `UserError` when `needed` bytes do not fit beside `target`. To be called before heavy work."""
    free = free_bytes(Path(target).parent)
    if free < needed:
        raise UserError(_message(needed, free), where=str(target), fix="free some space or choose another folder")


def require_space(target: Path, needed: int) -> None:
    """Raise `DiskFullError` when `needed` bytes do not fit beside `target`. To be called before each save."""
    free = free_bytes(target.parent)
    if free < needed:
        raise disk_full(target, needed, free)


def is_full(error: OSError) -> bool:
    """Whether the error means that the disk, or the user's quota, is used up."""
    return error.errno in _FULL


def disk_full(target: Path, needed: int, free: int) -> DiskFullError:
    """The error of a save for which there is no room, before it or in the middle of it."""
    error = DiskFullError(errno.ENOSPC, _message(needed, free), str(target))
    error.needed = needed
    return error


def _message(needed: int, free: int) -> str:
    return f"not enough disk space: {needed:,} bytes needed, {free:,} free"
