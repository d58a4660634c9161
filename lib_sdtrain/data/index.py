"""What was learnt of picture files, kept in one SQLite file: a folder that has not changed opens without being read.

A file is known by its path, size and time of change. What cannot be read is kept too, with the reason.
"""
from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = 1
COMMIT_EVERY = 2000


@dataclass(frozen=True)
class Known:
    """What a file's bytes tell: their SHA-256, the upright size, `look` (`look_of`); or `problem`, why not."""

    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    look: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Found:
    """A file in a listing: its path as text (a million `Path`s take seconds), bytes and time of change."""

    name: str
    size: int
    changed: int

    @property
    def path(self) -> Path:
        """The path."""
        return Path(self.name)


def list_files(folder: Path) -> Iterator[Found]:
    """Every file below `folder`, hidden ones left out, without opening any; a folder that cannot be read is empty."""
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                facts = entry.stat()
            except OSError:
                continue
            if stat.S_ISDIR(facts.st_mode):
                if not entry.is_symlink():
                    waiting.append(entry.path)
            elif stat.S_ISREG(facts.st_mode):
                yield Found(entry.path, facts.st_size, facts.st_mtime_ns)


class PictureIndex:
    """Facts by file, in the SQLite file `path`; one that is damaged is begun anew. For one thread at a time.

    Raises `OSError` or `sqlite3.Error` when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._open(path)
        self._added = 0

    def _open(self, path: Path) -> None:
        self._base = sqlite3.connect(path, check_same_thread=False)
        self._base.execute("pragma journal_mode = wal")
        self._base.execute("pragma synchronous = normal")
        if self._base.execute("pragma user_version").fetchone()[0] != VERSION:
            self._base.execute("drop table if exists files")
            self._base.execute(f"pragma user_version = {VERSION}")
        self._base.execute(
            "create table if not exists files (path text primary key, bytes integer, changed integer, sha256 blob, "
            "width integer, height integer, look integer, problem text) without rowid"
        )
        self._base.commit()

    def below(self, folder: Path) -> dict[str, tuple[Found, Known]]:
        """What is known of the files below a folder by name, each with the state in which that was learnt."""
        root = str(folder.absolute())
        rows = self._base.execute(
            "select path, bytes, changed, sha256, width, height, look, problem from files where path > ? and path < ?",
            (root + os.sep, root + chr(ord(os.sep) + 1)),
        )
        found = {}
        for path, size, changed, sha256, width, height, look, problem in rows:
            file = os.path.join(folder, path[len(root) + 1 :])  # noqa: PTH118 - as os.scandir names it
            found[file] = (Found(file, size, changed), Known(sha256.hex(), (width, height), look + 2**63, problem))
        return found

    def learn(self, found: Found, known: Known) -> None:
        """Remember what a file told."""
        self._base.execute(
            "insert or replace into files values (?, ?, ?, ?, ?, ?, ?, ?)",
            (str(found.path.absolute()), found.size, found.changed, bytes.fromhex(known.sha256), *known.size,
             known.look - 2**63, known.problem),
        )
        self._added += 1
        if self._added % COMMIT_EVERY == 0:
            self._base.commit()

    def close(self) -> None:
        """Write what was learnt."""
        self._base.commit()
        self._base.close()
