"""What was learnt of picture files, kept in one SQLite file: a folder that has not changed opens without being read.

A file is known by its path, size and time of change, and so is the caption beside it. What cannot be read is kept too,
with the reason.
"""
from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from lib_sdtrain.data.listing import Listed

VERSION = 2
PATIENCE = 60.0  # seconds to wait for another process that writes
CACHE_KB = 16_000
_COLUMNS = (
    "path blob primary key, size integer, changed integer, sha256 blob, width integer, height integer, "
    "look integer, problem text, beside text, beside_size integer, beside_changed integer, caption text, wrong text"
)
_SOURCES = (
    "create table if not exists {0}sources (id integer primary key, path blob unique, size integer, changed integer)"
)
_ROWS = "create table if not exists {0}rows (source integer, name blob, said text, primary key (source, name))"
_LOOK = 2**63  # SQLite's numbers have a sign


class Known(NamedTuple):
    """What a picture's bytes tell: their SHA-256, the upright size, `look` (`look_of`); or `problem`, why not."""

    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    look: int = 0
    problem: str = ""


class Said(NamedTuple):
    """What the file beside a picture says: its caption, or what is `wrong` with it. None without such a file."""

    caption: str | None = None
    wrong: str = ""


class PictureIndex:
    """Facts by file, in the SQLite file `path`; without one nothing is kept. A damaged file is begun anew.

    Raises `OSError` or `sqlite3.Error` when it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._make(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._make(path)

    def _make(self, path: Path) -> None:
        base = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        try:
            base.execute("pragma journal_mode = wal")
            if base.execute("pragma user_version").fetchone()[0] != VERSION:
                base.execute("begin immediate")
                base.execute("drop table if exists files")
                base.execute(f"create table files ({_COLUMNS}) without rowid")
                base.execute(f"pragma user_version = {VERSION}")
                base.execute("commit")
            _add_metadata(base)
        finally:
            base.close()

    def attach(self, base: sqlite3.Connection) -> None:
        """Make its table `known.files` a part of a connection."""
        base.execute("attach database ? as known", ("" if self.path is None else str(self.path),))
        if self.path is None:
            base.execute(f"create table known.files ({_COLUMNS}) without rowid")
            _add_metadata(base, "known.")
        else:
            base.execute("pragma known.synchronous = normal")


def _add_metadata(base: sqlite3.Connection, place: str = "") -> None:
    base.execute(_SOURCES.format(place))
    base.execute(f"{_ROWS.format(place)} without rowid")


def connected(index: PictureIndex) -> sqlite3.Connection:
    """A private database, in a file that goes with it, to which an index is attached. Threads may share it by turns."""
    base = sqlite3.connect("", timeout=PATIENCE, check_same_thread=False, isolation_level=None)
    base.execute("pragma journal_mode = off")
    base.execute("pragma synchronous = off")
    base.execute(f"pragma cache_size = -{CACHE_KB}")
    index.attach(base)
    return base


def learn(base: sqlite3.Connection, facts: Iterable[tuple[Listed, Known, Said]]) -> None:
    """Remember what files told, in the attached `known.files`."""
    rows = ((*listed[:3], *kept(known), *listed[3:6], *said) for listed, known, said in facts)
    base.execute("begin immediate")
    base.executemany(
        "insert or replace into known.files (path, size, changed, sha256, width, height, look, problem, beside, "
        "beside_size, beside_changed, caption, wrong) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows,
    )
    base.execute("commit")


def fill_rows(base: sqlite3.Connection, path: Path, read: Callable[[], Iterable[tuple[bytes, str]]]) -> None:
    """Make the table `row` (name, said) of a connection: the rows of a metadata file, which `read` tells where the
    index does not know them, or the file has changed. What `read` raises leaves the index as it was.
    """
    facts = path.stat()
    state = os.fsencode(path.absolute()), facts.st_size, facts.st_mtime_ns
    base.execute("create table row (name blob primary key, said text) without rowid")
    found = base.execute("select id from known.sources where path = ? and size = ? and changed = ?", state).fetchone()
    if found is not None:
        base.execute("insert into row select name, said from known.rows where source = ?", found)
        return
    base.executemany("insert or replace into row values (?, ?)", read())
    base.execute("begin immediate")  # not before: others wait for it
    base.execute("delete from known.rows where source in (select id from known.sources where path = ?)", state[:1])
    base.execute("delete from known.sources where path = ?", state[:1])
    number = base.execute("insert into known.sources (path, size, changed) values (?, ?, ?)", state).lastrowid
    base.execute("insert into known.rows select ?, name, said from row", (number,))
    base.execute("commit")


def kept(known: Known) -> tuple:
    """The columns sha256, width, height, look, problem."""
    return bytes.fromhex(known.sha256), *known.size, known.look - _LOOK, known.problem


def look_from(column: int) -> int:
    """A `look` from how it is kept."""
    return column + _LOOK


def known_from(row: tuple) -> Known:
    """What was `kept`."""
    sha256, width, height, look, problem = row
    return Known(sha256.hex(), (width, height), look + _LOOK, problem)
