"""Opening a folder of pictures: each file is decoded once to be sure it can be, and again only when it changed."""
from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from lib_sdtrain.data.ahead import ahead
from lib_sdtrain.data.catalogue import Catalogue, Shelf
from lib_sdtrain.data.concepts import Captions, read_beside
from lib_sdtrain.data.index import Known, PictureIndex, Said, connected, kept, known_from, learn
from lib_sdtrain.data.listing import Listed, Unlisted, list_pictures
from lib_sdtrain.data.pictures import BadPicture, decode, look_of, read_bytes
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Notice, Phase

WINDOW, LEARNT_AT_ONCE, LISTED_AT_ONCE = 2000, 256, 10_000
_LIST = (
    "create table unsorted (path blob, size integer, changed integer, beside text, beside_size integer, "
    "beside_changed integer, masked integer)"
)
_SHOT = (
    "create table shot as select l.*, f.sha256, f.width, f.height, f.look, f.problem, f.caption, f.wrong, "
    "coalesce(f.size = l.size and f.changed = l.changed, 0) as same, "
    "coalesce(f.size = l.size and f.changed = l.changed and f.beside = l.beside and f.beside_size = l.beside_size "
    "and f.beside_changed = l.beside_changed, 0) as fresh "
    "from listed l left join known.files f on f.path = l.path order by l.rowid"
)
_NEWS = (
    "select rowid, path, size, changed, beside, beside_size, beside_changed, masked, same, sha256, width, height, "
    "look, problem from shot where rowid > ? and rowid <= ? and not fresh order by rowid"
)
_LEARNT = (
    "update shot set sha256 = ?, width = ?, height = ?, look = ?, problem = ?, caption = ?, wrong = ?, fresh = 1 "
    "where rowid = ?"
)
_GOOD = "from shot where rowid <= ? and fresh and problem = '' and wrong = ''"


def open_folder(
    folder: Path, token: CancelToken, limit: int | None = None, captions: Captions | None = None,
    index: PictureIndex | None = None, listing: Callable[[Path], Iterator[Listed | Unlisted]] = list_pictures,
) -> Generator[Event, None, Catalogue]:
    """The pictures below `folder` (the first `limit` good ones) in the order of their names.

    Yields progress, and a notice for each one that is left out. What `index` knows is not read again; what was learnt
    is kept when this is stopped. `listing` tells what files there are.
    """
    base = connected(index or PictureIndex())
    yield from _list(base, folder, listing(folder), token)
    last = yield from _read(base, folder, token, limit)
    yield from _left_out(base, folder, last)
    base.execute("detach database known")
    shelf = Shelf(base, folder, captions or Captions(folder))
    wanted = shelf.count if limit is None else limit
    if wanted == shelf.count == base.execute(f"select count(*) {_GOOD}", (last,)).fetchone()[0]:
        return Catalogue(shelf)
    good = base.execute(f"select rowid {_GOOD} order by rowid limit ?", (last, wanted))
    return Catalogue(shelf, np.fromiter((row for (row,) in good), np.uint32))


def _list(
    base: sqlite3.Connection, folder: Path, found: Iterator[Listed | Unlisted], token: CancelToken
) -> Iterator[Event]:
    """The table `shot`: the files that are there, in order, with what is known of them."""
    base.execute(_LIST)
    done = 0
    while chunk := list(islice(found, LISTED_AT_ONCE)):
        token.check()
        files = [tuple(one) for one in chunk if one.__class__ is Listed]  # bound faster than what is like a tuple
        base.execute("begin")
        base.executemany("insert into unsorted values (?, ?, ?, ?, ?, ?, ?)", files)
        base.execute("commit")
        for one in chunk if len(files) < len(chunk) else ():
            if isinstance(one, Unlisted):
                yield Notice(text=f"left out: {one.why}", where=os.fsdecode(one.path))
        done += len(chunk)
        if len(chunk) == LISTED_AT_ONCE:
            yield Phase(name=f"listing {folder.name}", done=done, total=0, unit="files")
    base.execute("create table listed as select * from unsorted order by path")
    base.execute("drop table unsorted")
    base.execute(_SHOT)
    base.execute("drop table listed")


def _read(
    base: sqlite3.Connection, folder: Path, token: CancelToken, limit: int | None
) -> Generator[Event, None, int]:
    """Read what is new or has changed; the last row that was looked at, which with a limit need not be the last."""
    total = base.execute("select count(*) from shot").fetchone()[0]
    wanted = total if limit is None else min(limit, total)
    first = 0
    while True:
        for start in range(first, wanted, WINDOW):
            end = min(start + WINDOW, wanted)
            rows = base.execute(_NEWS, (start, end)).fetchall()
            token.check()
            yield from _learnt(base, rows, f"reading pictures of {folder.name}", wanted, token)
            yield Phase(name=f"reading pictures of {folder.name}", done=end, total=wanted, unit="pictures")
        if limit is None or wanted == total:
            return wanted
        good = base.execute(f"select count(*) {_GOOD}", (wanted,))
        if (missing := limit - good.fetchone()[0]) <= 0:
            return wanted
        first, wanted = wanted, min(total, wanted + missing)


def _learnt(
    base: sqlite3.Connection, rows: list[tuple], phase: str, total: int, token: CancelToken
) -> Iterator[Event]:
    """Read these files, a little ahead by threads, and remember what they tell."""
    done: list[tuple[int, Listed, Known, Said]] = []
    try:
        for row, facts in zip(rows, ahead("scan", rows, _facts, lambda row: None), strict=True):
            done.append((row[0], Listed(*row[1:8]), *facts))
            yield Phase(name=phase, done=row[0], total=total, unit="pictures")
            token.check()
            if len(done) >= LEARNT_AT_ONCE:
                _remember(base, done)
                done = []
    finally:
        if done:
            _remember(base, done)


def _remember(base: sqlite3.Connection, done: list[tuple[int, Listed, Known, Said]]) -> None:
    learn(base, [one[1:] for one in done])
    base.executemany(_LEARNT, [(*kept(known), *said, row) for row, _, known, said in done])


def _facts(row: tuple) -> tuple[Known, Said]:
    listed, same = Listed(*row[1:8]), row[8]
    path = Path(os.fsdecode(listed.path))
    known = known_from(row[9:]) if same else read_facts(path)
    if not listed.beside:
        return known, Said()
    try:
        return known, Said(read_beside(path.with_suffix(listed.beside), keep_lines=True))
    except UserError as error:
        return known, Said(wrong=error.problems[0].what)


def _left_out(base: sqlite3.Connection, folder: Path, last: int) -> Iterator[Notice]:
    rows = base.execute("select path, beside, problem, wrong from shot where rowid <= ? and fresh "
                        "and (problem <> '' or wrong <> '') order by rowid", (last,)).fetchall()
    for path, beside, problem, wrong in rows:
        file = folder / Path(os.fsdecode(path)).relative_to(folder.absolute())
        yield Notice(text=f"left out: {problem or wrong}", where=str(file if problem else file.with_suffix(beside)))


def read_facts(path: Path) -> Known:
    """What a picture file tells; a file that cannot be used has a `problem`."""
    try:
        content = read_bytes(path)
        image = decode(content)
    except BadPicture as error:
        return Known(problem=str(error))
    return Known(hashlib.sha256(content).hexdigest(), image.size, look_of(image))
