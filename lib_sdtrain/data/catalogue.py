"""The pictures of a folder as they were when it was opened, however many.

They are kept in a file of their own that goes when the process does. In memory are the size of each, 8 bytes, and where
some were left out 4 for its number.
"""
from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import overload

import numpy as np

from lib_sdtrain.data.concepts import Captions, Picture
from lib_sdtrain.data.index import look_from
from lib_sdtrain.data.pictures import Size

AT_ONCE, LATELY = 500, 2048
_SOME = (
    "select rowid, path, sha256, width, height, look, caption, masked from shot "
    "where rowid in (select value from json_each(?))"
)
_COLUMNS = {
    "names": "select path from shot where rowid > ? order by rowid limit ?",
    "bare": "select caption is null from shot where rowid > ? order by rowid limit ?",
    "looks": "select sha256, look from shot where rowid > ? order by rowid limit ?",
}


class Shelf:
    """Rows 1 to n of the table `shot` of a private database, as pictures below `root`. Threads may share it.

    Rows of pictures that could not be read are among them: `Catalogue` leaves them out.
    """

    def __init__(self, base: sqlite3.Connection, root: Path, captions: Captions) -> None:
        self._base, self._lock = base, threading.Lock()
        self.root, self.captions = root, captions
        self._cut = len(os.fsencode(root.absolute())) + (0 if root.absolute() == Path(root.absolute().anchor) else 1)
        self.count = base.execute("select count(*) from shot").fetchone()[0]
        pairs = base.execute("select coalesce(width, 0) << 32 | coalesce(height, 0) from shot order by rowid")
        both = np.fromiter((pair for (pair,) in pairs), np.uint64, self.count)
        self.sizes = np.stack([both >> 32, both & 0xFFFFFFFF], axis=1).astype(np.uint32)
        self.one = lru_cache(maxsize=LATELY)(lambda number: self.some([number])[0])

    def captioned(self, captions: Captions) -> Shelf:
        """The same rows with captions from elsewhere."""
        found = copy(self)
        found.captions = captions
        found.one = lru_cache(maxsize=LATELY)(lambda number: found.some([number])[0])
        return found

    def some(self, numbers: Sequence[int]) -> list[Picture]:
        """The pictures of these rows, in the order asked for."""
        with self._lock:
            rows = self._base.execute(_SOME, (json.dumps(numbers),)).fetchall()
        found = {row[0]: row for row in rows}
        return [self._picture(found[number]) for number in numbers]

    def column(self, name: str) -> Iterator[tuple]:
        """One of `_COLUMNS` of all rows, in order."""
        last = 0
        while last < self.count:
            with self._lock:
                rows = self._base.execute(_COLUMNS[name], (last, 20 * AT_ONCE)).fetchall()
            last += len(rows)
            yield from rows

    def name(self, path: bytes) -> str:
        """A row's path as seen from the root, with slashes."""
        return os.fsdecode(path[self._cut :])

    def _picture(self, row: tuple) -> Picture:
        _, path, sha256, width, height, look, said, masked = row
        file = self.root / self.name(path)
        caption, columns = self.captions.of(file, said)
        mask = self.captions.mask_of(file, bool(masked))
        return Picture(file, sha256.hex(), (width, height), caption, columns, look_from(look), mask)


class Catalogue(Sequence[Picture]):
    """Pictures of a shelf: all of them, or those of some rows. `words` are the captions of pictures that have none of
    their own, by row. Those of a `silent` one have no captions.
    """

    def __init__(
        self, shelf: Shelf, rows: np.ndarray | None = None, words: tuple[np.ndarray, Sequence[str]] | None = None,
        silent: bool = False,
    ) -> None:  # fmt: skip
        self.shelf, self.rows, self.words, self.silent = shelf, rows, words, silent

    def __len__(self) -> int:
        return self.shelf.count if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Picture: ...

    @overload
    def __getitem__(self, place: slice) -> Catalogue: ...

    def __getitem__(self, place: int | slice) -> Picture | Catalogue:
        if isinstance(place, slice):
            rows = np.arange(1, self.shelf.count + 1, dtype=np.uint32) if self.rows is None else self.rows
            return Catalogue(self.shelf, rows[place], self.words, self.silent)
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._worded(self._row(place % len(self)))

    def _row(self, place: int) -> int:
        return place + 1 if self.rows is None else int(self.rows[place])

    def _worded(self, row: int, picture: Picture | None = None) -> Picture:
        picture = picture or self.shelf.one(row)
        if self.silent:
            return replace(picture, caption=None)
        if self.words is None or picture.caption is not None:
            return picture
        said = self.words[1][self.words[0][row - 1]]
        return replace(picture, caption=said) if said else picture

    def __iter__(self) -> Iterator[Picture]:
        for start in range(0, len(self), AT_ONCE):
            rows = [self._row(place) for place in range(start, min(start + AT_ONCE, len(self)))]
            yield from map(self._worded, rows, self.shelf.some(rows))

    def sizes(self) -> np.ndarray:
        """(n, 2): width and height of each."""
        return self.shelf.sizes if self.rows is None else self.shelf.sizes[self.rows - 1]

    def size_at(self, place: int) -> Size:
        """The size of one."""
        width, height = self.shelf.sizes[self._row(place) - 1]
        return int(width), int(height)

    def chosen(self, places: np.ndarray) -> Catalogue:
        """Those at some places."""
        rows = places + 1 if self.rows is None else self.rows[places]
        return Catalogue(self.shelf, rows.astype(np.uint32), self.words, self.silent)

    def column(self, name: str) -> Iterator[tuple]:
        """Of each: `names` (the path's bytes), `bare` (no caption file) or `looks` (SHA-256, look). Rows go upwards."""
        if self.rows is None:
            return self.shelf.column(name)
        wanted = np.zeros(self.shelf.count, bool)
        wanted[self.rows - 1] = True
        return compress(self.shelf.column(name), wanted)

    def uncaptioned(self) -> int:
        """How many have no caption."""
        if self.silent:
            return len(self)
        if not self.shelf.captions.only_beside:
            return sum(picture.caption is None for picture in self)
        bare = np.fromiter((bare for (bare,) in self.column("bare")), bool, len(self))
        if self.words is not None:
            own = self.words[0] if self.rows is None else self.words[0][self.rows - 1]
            bare &= own == 0
        return int(bare.sum())

    def with_words(self, words: Mapping[str, Sequence[int]]) -> Catalogue:
        """With captions for the pictures at some places that have none."""
        texts = ["", *words]
        own = np.zeros(self.shelf.count, np.uint16 if len(texts) < 65536 else np.uint32)
        for number, places in enumerate(words.values(), 1):
            for place in places:
                own[self._row(place) - 1] = number
        return Catalogue(self.shelf, self.rows, (own, texts))

    def captioned(self, captions: Captions) -> Catalogue:
        """The same pictures with captions from elsewhere."""
        return Catalogue(self.shelf.captioned(captions), self.rows)

    def without_captions(self) -> Catalogue:
        """The same pictures, of which nothing is said."""
        return Catalogue(self.shelf, self.rows, silent=True)


def sizes_of(pictures: Sequence[Picture]) -> np.ndarray:
    """(n, 2): width and height of each picture."""
    if isinstance(pictures, Catalogue):
        return pictures.sizes()
    return np.array([picture.size for picture in pictures], np.uint32).reshape(-1, 2)


def size_at(pictures: Sequence[Picture], place: int) -> Size:
    """The size of one picture."""
    return pictures.size_at(place) if isinstance(pictures, Catalogue) else pictures[place].size


def chosen(pictures: Sequence[Picture], places: np.ndarray) -> Sequence[Picture]:
    """The pictures at some places, which go upwards."""
    if len(places) == len(pictures):
        return pictures
    if isinstance(pictures, Catalogue):
        return pictures.chosen(places)
    return tuple(pictures[int(place)] for place in places)


def with_words(pictures: Sequence[Picture], words: Mapping[str, Sequence[int]]) -> Sequence[Picture]:
    """The pictures, those at some places with a caption where they have none."""
    if isinstance(pictures, Catalogue):
        return pictures.with_words(words)
    own = {place: text for text, places in words.items() for place in places}
    return tuple(replace(picture, caption=own.get(place)) if picture.caption is None else picture
                 for place, picture in enumerate(pictures))


def without_captions(pictures: Sequence[Picture]) -> Sequence[Picture]:
    """The pictures, of which nothing is said."""
    if isinstance(pictures, Catalogue):
        return pictures.without_captions()
    return tuple(replace(picture, caption=None) for picture in pictures)


def captions_behind(pictures: Sequence[Picture], root: Path) -> Captions:
    """Where the captions of pictures below `root` come from."""
    return pictures.shelf.captions if isinstance(pictures, Catalogue) else Captions(root)


def uncaptioned(pictures: Sequence[Picture]) -> int:
    """How many have no caption."""
    if isinstance(pictures, Catalogue):
        return pictures.uncaptioned()
    return sum(picture.caption is None for picture in pictures)


def names_of(pictures: Sequence[Picture], root: Path) -> Iterator[str]:
    """Paths as seen from `root`, with slashes."""
    if isinstance(pictures, Catalogue) and pictures.shelf.root == root:
        return (pictures.shelf.name(path) for (path,) in pictures.column("names"))
    return (picture.path.relative_to(root).as_posix() for picture in pictures)


def looks_of(pictures: Sequence[Picture]) -> Iterator[tuple[str, int]]:
    """(SHA-256, look) of each."""
    if isinstance(pictures, Catalogue):
        return ((sha256.hex(), look_from(look)) for sha256, look in pictures.column("looks"))
    return ((picture.sha256, picture.look) for picture in pictures)
