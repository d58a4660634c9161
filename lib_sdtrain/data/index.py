"""What was learnt of picture files, kept in one SQLite file: a folder that has not changed opens without being read.

A file is known by its path, size and time of change, and so is the caption beside it. What cannot be read is kept too,
with the reason.
"""
from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lib_sdtrain.data.listing import Listed

VERSION = 2
PATIENCE = 60.0  # seconds to wait for another process that writes
_COLUMNS = (
    "path blob primary key, size integer, changed integer, sha256 blob, width integer, height integer, "
    "look integer, problem text, beside text, beside_size integer, beside_changed integer, caption text, wrong text"
)
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
        finally:
            base.close()

    def attach(self, base: sqlite3.Connection) -> None:
        """Make its table `known.files` a part of a connection."""
        base.execute("attach database ? as known", ("" if self.path is None else str(self.path),))
        if self.path is None:
            base.execute(f"create table known.files ({_COLUMNS}) without rowid")
        else:
            base.execute("pragma known.synchronous = normal")


def learn(base: sqlite3.Connection, facts: Iterable[tuple[Listed, Known, Said]]) -> None:
    """Remember what files told, in the attached `known.files`."""
    rows = ((*listed[:3], *kept(known), *listed[3:6], *said) for listed, known, said in facts)
    base.execute("begin immediate")
    base.executemany(
        "insert or replace into known.files (path, size, changed, sha256, width, height, look, problem, beside, "
        "beside_size, beside_changed, caption, wrong) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows,
    )
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
