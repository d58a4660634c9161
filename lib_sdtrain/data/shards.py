"""Tensors on disk by name, many in a file: compressed, each with a checksum, and no more than one file to lose.

A shard is written whole under a temporary name and renamed, so a process that is killed loses what it had not yet
written, at most one shard. Its table of contents stands at its end; `index.sqlite` gathers those of all shards, so
that a million entries open at once, and is made again from the shards when it is lost.

A shard: entries one after another, the table as JSON, its length (8 bytes, little-endian), its CRC-32 (4), "SDTSHRD1".
"""
from __future__ import annotations

import json
import secrets
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib_sdtrain.durable import write_atomically

MAGIC = b"SDTSHRD1"
_TAIL = struct.Struct("<QI8s")
_DTYPES = {"fp16": (np.float16, torch.float16), "fp32": (np.float32, torch.float32), "bf16": (np.int16, torch.bfloat16)}
SHARD_BYTES = 32 * 2**20
SHARD_ENTRIES = 256
LEVEL = 4


class DamagedShard(Exception):  # noqa: N818 - reads as what it is
    """A shard is not what was written; the message names it."""


def pack(tensor: Tensor) -> bytes:
    """A tensor compressed: the first bytes of all numbers, then the second ones, ...: exponents lie together so."""
    plain = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # numpy knows no bfloat16
    array = np.ascontiguousarray(plain.numpy())
    planes = array.view(np.uint8).reshape(-1, array.itemsize).T
    return zlib.compress(np.ascontiguousarray(planes).tobytes(), LEVEL)


def unpack(content: bytes, dtype: str, shape: Iterable[int]) -> Tensor:
    """The tensor that `pack` was given."""
    kind, meant = np.dtype(_DTYPES[dtype][0]), _DTYPES[dtype][1]
    planes = np.frombuffer(zlib.decompress(content), np.uint8).reshape(kind.itemsize, -1)
    return torch.from_numpy(np.ascontiguousarray(planes.T).view(kind).reshape(tuple(shape))).view(meant)


class ShardStore:
    """Tensors of fp16, bf16 or fp32 by name below a folder. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Tensor, bytes]] = {}
        self._index = sqlite3.connect(folder / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._index.execute("pragma journal_mode = wal")
        self._index.execute("pragma synchronous = normal")
        self._index.execute("create table if not exists shards (file text primary key)")
        self._index.execute(
            "create table if not exists entries (name text primary key, file text, at integer, length integer, "
            "crc integer, dtype text, shape text) without rowid"
        )
        self._index.execute("create index if not exists by_file on entries (file)")
        self.damaged = self._follow_files()

    def _follow_files(self) -> list[str]:
        """Bring the index up to the shards that are there; names of those that cannot be read, which are removed."""
        present = {path.name for path in self.folder.glob("*.shard")}
        known = {name for (name,) in self._index.execute("select file from shards")}
        for name in known - present:
            self._forget(name)
        damaged = []
        for name in sorted(present - known):
            try:
                self._remember(name, read_table(self.folder / name))
            except DamagedShard:
                (self.folder / name).unlink()
                damaged.append(name)
        return damaged

    def _remember(self, file: str, table: dict[str, list]) -> None:
        rows = [(name, file, *entry[:4], json.dumps(entry[4])) for name, entry in table.items()]
        self._index.execute("begin")
        self._index.executemany("insert or replace into entries values (?, ?, ?, ?, ?, ?, ?)", rows)
        self._index.execute("insert or replace into shards values (?)", (file,))
        self._index.execute("commit")

    def _forget(self, file: str) -> None:
        self._index.execute("delete from entries where file = ?", (file,))
        self._index.execute("delete from shards where file = ?", (file,))

    def __contains__(self, name: str) -> bool:
        with self._lock:
            if name in self._waiting:
                return True
            return self._index.execute("select 1 from entries where name = ?", (name,)).fetchone() is not None

    def get(self, name: str) -> Tensor | None:
        """The tensor, None where there is none. Raises `DamagedShard` when its checksum is wrong."""
        with self._lock:
            if name in self._waiting:
                return self._waiting[name][0]
            row = self._index.execute(
                "select file, at, length, crc, dtype, shape from entries where name = ?", (name,)).fetchone()
        if row is None:
            return None
        file, at, length, crc, dtype, shape = row
        try:
            with (self.folder / file).open("rb") as shard:
                shard.seek(at)
                content = shard.read(length)
        except FileNotFoundError:  # another run has forgotten it meanwhile
            return None
        except OSError as error:
            raise DamagedShard(file) from error
        if zlib.crc32(content) != crc:
            raise DamagedShard(file)
        return unpack(content, dtype, json.loads(shape))

    def put(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor; it is on disk after `flush`, or when enough have come for a shard."""
        content = pack(tensor)
        with self._lock:
            self._waiting[name] = tensor, content
            full = len(self._waiting) >= SHARD_ENTRIES or self._bytes_waiting() >= SHARD_BYTES
            if full:
                self._write()

    def flush(self) -> None:
        """Write what is waiting."""
        with self._lock:
            if self._waiting:
                self._write()

    def _bytes_waiting(self) -> int:
        return sum(len(content) for _, content in self._waiting.values())

    def _write(self) -> None:
        body, table = bytearray(), {}
        for name, (tensor, content) in self._waiting.items():
            dtype = next(key for key, (_, kind) in _DTYPES.items() if kind == tensor.dtype)
            table[name] = [len(body), len(content), zlib.crc32(content), dtype, list(tensor.shape)]
            body += content
        listed = zlib.compress(json.dumps(table).encode(), 1)
        body += listed + _TAIL.pack(len(listed), zlib.crc32(listed), MAGIC)
        file = f"{secrets.token_hex(8)}.shard"
        write_atomically(self.folder / file, bytes(body))
        self._remember(file, table)
        self._waiting.clear()

    def drop(self, file: str) -> None:
        """Remove a shard and what is known of it: it is made again when it is asked for."""
        with self._lock:
            (self.folder / file).unlink(missing_ok=True)
            self._forget(file)

    def forget(self, names: Iterable[str]) -> None:
        """Keep these no longer; a shard is removed once nothing in it is kept."""
        self.flush()
        for name in names:
            with self._lock:
                file = self._file_of(name)
                self._index.execute("delete from entries where name = ?", (name,))
                if file and not self._index.execute("select 1 from entries where file = ?", (file,)).fetchone():
                    self._forget(file)
                    (self.folder / file).unlink(missing_ok=True)

    def check(self, names: Iterable[str]) -> Iterator[tuple[str, bool]]:
        """(file, whether it is whole) for every shard that holds one of the names, each read once from end to end."""
        with self._lock:
            found = {self._file_of(name) for name in names} - {None}
        for file in sorted(found):
            yield file, self._whole(file)

    def _file_of(self, name: str) -> str | None:
        row = self._index.execute("select file from entries where name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _whole(self, file: str) -> bool:
        try:
            table, content = read_table(self.folder / file), (self.folder / file).read_bytes()
        except (DamagedShard, OSError):
            return False
        return all(zlib.crc32(content[at : at + length]) == crc for at, length, crc, *_ in table.values())

    def close(self) -> None:
        """Write what is waiting and let the index go."""
        self.flush()
        self._index.close()


def read_table(path: Path) -> dict[str, list]:
    """{name: [offset, length, CRC-32, dtype, shape]} of a shard. Raises `DamagedShard`."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            end = file.tell() - _TAIL.size
            if end < 0:
                raise DamagedShard(path.name)
            file.seek(end)
            length, crc, magic = _TAIL.unpack(file.read(_TAIL.size))
            if magic != MAGIC or length > end:
                raise DamagedShard(path.name)
            file.seek(end - length)
            listed = file.read(length)
        if zlib.crc32(listed) != crc:
            raise DamagedShard(path.name)
        return json.loads(zlib.decompress(listed))
    except (OSError, zlib.error, ValueError) as error:
        raise DamagedShard(path.name) from error
