"""Picture files below a folder, found without opening any, each with what stands beside it."""
from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".avif"})
CAPTION_SUFFIXES = (".txt", ".caption")
MASK_LABEL = "-masklabel"
_SUFFIXES = frozenset(suffix.encode() for suffix in SUFFIXES)
_MASK_LABEL, _FIRST, _SECOND = MASK_LABEL.encode(), *(suffix.encode() for suffix in CAPTION_SUFFIXES)


class Listed(NamedTuple):
    """A picture file: its absolute path (bytes, with slashes), its size and time of change; the same of the caption
    file beside it, by its suffix (empty for none); 1 where a NAME-masklabel.png is there, else 0 (SQLite
    takes numbers faster than bools).
    """

    path: bytes
    size: int
    changed: int
    beside: str = ""
    beside_size: int = 0
    beside_changed: int = 0
    masked: int = 0


@dataclass(frozen=True)
class Unlisted:
    """What could not even be listed: a path, and why."""

    path: bytes
    why: str


def list_pictures(folder: Path) -> Iterator[Listed | Unlisted]:
    """Every picture file below `folder`, in no order; hidden files and masks (NAME-masklabel.png) are left out.

    Folders behind links are not entered.
    """
    waiting = [os.fsencode(folder.absolute())]
    while waiting:
        place = waiting.pop()
        try:
            texts, masks = _beside(place)
            with os.scandir(place) as entries:
                for entry in entries:
                    found = _picture(entry, texts, masks, waiting)
                    if found is not None:
                        yield found
        except OSError as error:
            yield Unlisted(_slashes(place), f"the folder cannot be read: {error.strerror or error}")


def _slashes(path: bytes) -> bytes:
    return path if os.sep == "/" else path.replace(os.sep.encode(), b"/")


def _beside(place: bytes) -> tuple[dict[bytes, tuple[str, int, int]], set[bytes]]:
    """Caption files of a folder by the name without suffix, and the names that have a mask beside them."""
    texts: dict[bytes, tuple[str, int, int]] = {}
    masks: set[bytes] = set()
    with os.scandir(place) as entries:
        for entry in entries:
            stem, dot, suffix = entry.name.rpartition(b".")
            suffix = dot + suffix
            if suffix == _FIRST or (suffix == _SECOND and stem not in texts):
                if (state := _state(entry)) is not None:
                    texts[stem] = suffix.decode(), *state
            elif suffix == b".png" and stem.endswith(_MASK_LABEL):
                masks.add(stem[: -len(_MASK_LABEL)])
    return texts, masks


def _state(entry: os.DirEntry[bytes]) -> tuple[int, int] | None:
    """Size and time of change; None for what is no file, and for a link that leads nowhere."""
    try:
        facts = entry.stat()
    except OSError:
        return None
    return (facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else None


def _picture(
    entry: os.DirEntry[bytes], texts: dict[bytes, tuple[str, int, int]], masks: set[bytes], waiting: list[bytes]
) -> Listed | Unlisted | None:
    name = entry.name
    if name.startswith(b".") or name == b"__MACOSX":
        return None
    stem, dot, suffix = name.rpartition(b".")
    if (dot + suffix.lower()) not in _SUFFIXES or stem.endswith(_MASK_LABEL):
        if entry.is_dir(follow_symlinks=False):
            waiting.append(entry.path)
        return None
    path = _slashes(entry.path)
    try:
        facts = entry.stat()
    except OSError as error:
        return Unlisted(path, f"cannot be read: {error.strerror or error}")
    if stat.S_ISDIR(facts.st_mode):
        if not entry.is_symlink():
            waiting.append(entry.path)
        return None
    if not stat.S_ISREG(facts.st_mode):
        return Unlisted(path, "not a file")
    return Listed(path, facts.st_size, facts.st_mtime_ns, *texts.get(stem, ("", 0, 0)), int(stem in masks))
