"""Keeping paths that come from a page inside the folders that page may see."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_file


def is_path(text: str) -> bool:
    """Whether words of a page mean a file by its path, and not by the name under which it is found."""
    return "/" in text or "\\" in text or is_file(Path(text))


def resolved(path: str, where: str) -> Path:
    """The absolute path with `~` and links resolved. Raises `UserError` for text that is no path."""
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path!r} is not a path", where=where, fix="write a folder or file of this machine") from error


def confined(path: str, roots: Iterable[Path], where: str) -> Path:
    """The absolute path if it lies in one of `roots`. Raises `UserError` without telling what exists elsewhere."""
    target = resolved(path, where)
    allowed = [root.resolve() for root in roots]
    if any(target == root or root in target.parents for root in allowed):
        return target
    raise UserError(
        f"{path} is outside the folders that this page may use, because it can be reached from other machines",
        where=where, fix=f"use a folder inside {', '.join(map(str, allowed))}",
    )
