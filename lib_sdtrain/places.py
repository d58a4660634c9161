"""Looking at places that a user named. Where one may not look, and where no file system has names, nothing is."""
from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from lib_sdtrain.errors import UserError

MOST_BYTES = 255
"""Of a name of a file or folder, on nearly every file system."""


def is_file(path: Path) -> bool:
    """Whether a file stands there."""
    return _found(path.is_file)


def is_dir(path: Path) -> bool:
    """Whether a folder stands there."""
    return _found(path.is_dir)


def exists(path: Path) -> bool:
    """Whether anything stands there."""
    return _found(path.exists)


def _found(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EACCES):
            raise
        return False


def check_writable(folder: Path, where: str) -> None:
    """Raise `UserError` when a folder that need not exist yet cannot be made or written in. Writes nothing."""
    existing = next(place for place in (folder, *folder.absolute().parents) if exists(place))
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, a folder is needed there", where=where, fix="move it away")
    for name in folder.absolute().relative_to(existing.absolute()).parts:
        check_name(name, where)
    if not os.access(existing, os.W_OK | os.X_OK):
        fix = "give this user the permission to write there"
        raise UserError(f"nothing can be written in {existing}", where=where, fix=fix)


def check_name(name: str, where: str) -> None:
    """Raise `UserError` when the name of a file or folder is longer than file systems allow."""
    size = len(os.fsencode(name))
    if size > MOST_BYTES:
        raise UserError(
            f"the name {name[:20]}... takes {size} bytes, and no name may take more than {MOST_BYTES}", where=where,
            fix="choose a shorter one",
        )
