"""Captions and columns of pictures from one file for all of them: kohya's JSON, JSON lines, CSV, Parquet."""
from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lib_sdtrain.data.index import PictureIndex, connected, fill_rows
from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_file
from lib_sdtrain.textfiles import parse_json

NAMES = ("file_name", "filename", "file", "path", "image", "image_path", "img_path", "filepath", "key", "name", "id")
CAPTIONS = ("caption", "text", "prompt", "description")
TAGS = "tags"
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")

Row = Mapping[str, Any]


class MetadataFile:
    """Rows by picture, found by its path below the folder, whole path, name, or any of these without the suffix.

    They are kept in a file of their own that goes when the process does, as the file was when this was made. A file
    that `index` knows unchanged is not read again.
    """

    def __init__(self, file: str, where: str, index: PictureIndex | None = None) -> None:
        """Read `file`. Raises `UserError` when it cannot be."""
        self.path = Path(file).expanduser()
        if not is_file(self.path):
            raise UserError(f"there is no file {self.path}", where=where)
        self._lock, self._base = threading.Lock(), connected(index or PictureIndex())
        fill_rows(self._base, self.path, lambda: _packed(_read(self.path, where)))
        self._base.execute("detach database known")
        if not self._base.execute("select exists (select 1 from row)").fetchone()[0]:
            raise UserError(
                f"{self.path} names no picture", where=where, fix=f"its rows need one of {', '.join(NAMES)}"
            )

    def row(self, picture: Path, root: Path) -> Row:
        """What is known of a picture; nothing for one that is not named."""
        below = picture.relative_to(root)
        for key in (below, below.with_suffix(""), picture.absolute(), picture.absolute().with_suffix(""),
                    Path(picture.name), Path(picture.stem)):
            with self._lock:
                found = self._base.execute("select said from row where name = ?", (_name(key.as_posix()),)).fetchone()
            if found is not None:
                return json.loads(found[0])
        return {}

    def longer_than(self, size: int) -> Iterator[tuple[str, Row]]:
        """(name, row) of the rows that take more than `size` characters."""
        with self._lock:
            found = self._base.execute("select name, said from row where length(said) > ?", (size,)).fetchall()
        return ((name.decode(errors="replace"), json.loads(said)) for name, said in found)


def _packed(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[bytes, str]]:
    for key, row in rows:
        yield _name(key.replace("\\", "/")), json.dumps(row, default=str)


def _name(text: str) -> bytes:
    """Names of files need not be valid Unicode, and neither need those in JSON."""
    return text.encode(errors="surrogatepass")


def caption_of(row: Row, column: str = "") -> str | None:
    """The caption of a row: `column`, else the first of the usual ones with the tags after it (kohya's order)."""
    if column:
        return _text(row.get(column))
    said = next((text for name in CAPTIONS if (text := _text(row.get(name)))), None)
    tags = _text(row.get(TAGS))
    return ", ".join(part for part in (said, tags) if part) or None


def _text(value: Any) -> str | None:
    """A cell as text; lists are joined by commas."""
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    text = "" if value is None else str(value).strip()
    return text or None


def _read(path: Path, where: str) -> Iterator[tuple[str, Row]]:
    suffix = path.suffix.lower()
    readers = {".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv, ".tsv": _csv,
               ".parquet": _parquet}
    if suffix not in readers:
        raise UserError(
            f"{path.name} is of no kind that is read", where=where, fix=f"give one of {', '.join(SUFFIXES)}"
        )
    try:
        yield from readers[suffix](path, where)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}", where=where) from error


def _json(path: Path, where: str) -> Iterator[tuple[str, Row]]:
    raw = parse_json(path.read_text(encoding="utf-8-sig"))
    if isinstance(raw, Mapping):
        for key, row in raw.items():
            yield str(key), row if isinstance(row, Mapping) else {"caption": row}
    elif isinstance(raw, list):
        yield from _named(raw, path, where)
    else:
        raise UserError(f"{path} holds neither pictures by name nor a list of them", where=where)


def _json_lines(path: Path, where: str) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise UserError(f"line {number} is not JSON: {error}", where=str(path)) from error
                yield from _named([row], path, where)


def _csv(path: Path, where: str) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        yield from _named(csv.DictReader(lines, delimiter=delimiter), path, where)


def _parquet(path: Path, where: str) -> Iterator[tuple[str, Row]]:
    if find_spec("pyarrow") is None:
        raise UserError(
            f"{path.name}: reading Parquet needs the package pyarrow", where=where,
            fix="pip install pyarrow, or give a .csv or .jsonl",
        )
    from pyarrow import parquet

    for batch in parquet.ParquetFile(path).iter_batches():
        yield from _named(batch.to_pylist(), path, where)


def _named(rows: Any, path: Path, where: str) -> Iterator[tuple[str, Row]]:
    for row in rows:
        if not isinstance(row, Mapping):
            raise UserError(f"{path} has a row that is no mapping of names to values", where=where)
        name = next((row[column] for column in NAMES if row.get(column)), None)
        if name is not None:
            yield str(name), row
