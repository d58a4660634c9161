"""Changes to a folder of pictures that can be taken back: written, moved and made files, one journal a change."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.data.listing import CAPTION_SUFFIXES, SUFFIXES
from lib_sdtrain.durable import write_atomically
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.textfiles import parse_json

NAME = ".sdtrain-undo.json"
KINDS = SUFFIXES.union(CAPTION_SUFFIXES)


@dataclass
class Journal:
    """What a command did below `folder`, kept in a hidden file there; only the last change can be taken back."""

    folder: Path
    done: list[dict[str, Any]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self.folder / NAME

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, remembering what stood there."""
        before = path.read_bytes().decode("latin-1") if path.is_file() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._note({"file": str(path), "before": before, "after": hashlib.sha256(content).hexdigest()})
        write_atomically(path, content)

    def move(self, source: Path, target: Path) -> None:
        """Move a file. Raises `UserError` when the target is there already."""
        if target.exists():
            raise UserError("it is there already", where=str(target), fix="choose another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._note({"moved": str(source), "to": str(target)})
        source.rename(target)

    def _note(self, entry: dict[str, Any]) -> None:
        self.done.append(entry)
        if len(self.done) % 200 == 1:
            self.close()

    def close(self) -> None:
        """Write the journal, now and then while work goes on too. A change of nothing leaves the former one."""
        if not self.done:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.done).encode())


def undo(folder: Path, allowed: Callable[[str, str], object] = lambda path, where: None) -> int:
    """Take the last change back; the number of files. `allowed(path, where)` raises `UserError` for a place where
    nothing may be put: a journal may come with somebody else's pictures.

    Raises `UserError` when there is none, or files changed since.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError("there is nothing to take back", where=str(folder))
    done = [entry for entry in _read(path) if _happened(entry)]
    problems = Problems()
    for entry in done:
        _check_places(entry, folder, allowed, problems)
    problems.raise_if_any()
    for entry in done:
        if "file" in entry and hashlib.sha256(Path(entry["file"]).read_bytes()).hexdigest() != entry["after"]:
            problems.add("the file was changed since", where=entry["file"], fix="put it right by hand")
        if "moved" in entry and Path(entry["moved"]).exists():
            problems.add("there is a file again where this one was", where=entry["moved"])
    problems.raise_if_any()
    for entry in reversed(done):
        _take_back(entry)
    path.unlink()
    return len(done)


def _read(path: Path) -> list[dict[str, Any]]:
    """The entries of a journal. Raises `UserError` for one that is damaged."""
    try:
        entries = parse_json(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError("the list of what was changed is damaged", where=str(path)) from error
    forms = ({"file", "before", "after"}, {"moved", "to"})
    whole = isinstance(entries, list) and all(
        isinstance(entry, dict) and entry.keys() in forms
        and all(isinstance(value, str) or (name == "before" and value is None) for name, value in entry.items())
        for entry in entries
    )
    if not whole:
        raise UserError("the list of what was changed is damaged", where=str(path))
    return entries


def _check_places(
    entry: dict[str, Any], folder: Path, allowed: Callable[[str, str], object], problems: Problems
) -> None:
    """A change was made below the journal's folder, and a moved file came from where pictures may be."""
    made = Path(entry.get("file") or entry["to"])
    before = Path(entry.get("moved") or made)
    if folder.resolve() not in made.resolve().parents:
        problems.add("this file does not lie in the folder of the change", where=str(made), fix="put it right by hand")
    if before.name != made.name or made.suffix.lower() not in KINDS:
        problems.add("only pictures and captions are put back", where=str(before), fix="put it right by hand")
    try:
        allowed(str(before), "folder")
    except UserError as error:
        problems.absorb(error)


def _happened(entry: dict[str, Any]) -> bool:
    return Path(entry["file"] if "file" in entry else entry["to"]).is_file()


def _take_back(entry: dict[str, Any]) -> None:
    if "moved" in entry:
        Path(entry["moved"]).parent.mkdir(parents=True, exist_ok=True)
        Path(entry["to"]).rename(entry["moved"])
    elif entry["before"] is None:
        Path(entry["file"]).unlink()
    else:
        write_atomically(Path(entry["file"]), entry["before"].encode("latin-1"))
