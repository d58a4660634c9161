"""Changes to a folder of pictures that can be taken back: written, moved and made files, one journal a change."""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.durable import write_atomically
from lib_sdtrain.errors import Problems, UserError

NAME = ".sdtrain-undo.json"


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
        """Write the journal; it is written now and then while work goes on too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.done).encode())


def undo(folder: Path) -> int:
    """Take the last change back; the number of files. Raises `UserError` when there is none, or files changed since."""
    path = folder / NAME
    if not path.is_file():
        raise UserError("there is nothing to take back", where=str(folder))
    done = [entry for entry in json.loads(path.read_text("utf-8")) if _happened(entry)]
    problems = Problems()
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
