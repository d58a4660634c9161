"""Taking runs off the disk: only inside their folders, only what SD Train has written, only what is not in use."""
from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.api.history import History, file_bytes
from lib_sdtrain.api.runs import RunEntry, state_folders
from lib_sdtrain.errors import UserError
from lib_sdtrain.host.protocol import Host

STATE, RUN, FILES = "state", "run", "files"
WHAT = (STATE, RUN, FILES)
_OWN_FILES = ("config.yaml", "events.jsonl")
_PREVIEW = re.compile(r"step-\d+-\d+\.png")
_STATE = re.compile(r"\.?\d+(\.\d+)*(\.tmp)?")
_MODELS = (".safetensors", ".yaml", ".json", ".preview.png")


@dataclass(frozen=True)
class Removed:
    """What is gone, and names of what was left because SD Train did not write it."""

    bytes: int
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Removal:
    """Deletes runs, their states and their results."""

    host: Host
    history: History

    def remove(self, name: str, what: str) -> Removed:
        """`state`: what a run goes on from. `run`: all of its folder but the models in it. `files`: those too,
        and those that it wrote elsewhere.

        Raises `UserError` for an unknown run, one that is running, and a file that cannot be removed.
        """
        if what not in WHAT:
            raise UserError(f"{what!r} cannot be deleted", where="what", fix=f"one of {', '.join(WHAT)}")
        entry = self.history.run(name)
        if self.history.running(entry.path):
            raise UserError(f"{entry.label} is running", where="run", fix="stop it first")
        saved = self.history.log(entry).saved if what == FILES else {}
        before = sum(file_bytes(entry.path).values())
        try:
            elsewhere = sum(self._remove_model(entry, Path(file)) for file in saved)
            for folder in state_folders(entry.path):
                _remove_states(folder)
            if what != STATE:
                _remove_own(entry.path)
            after = sum(file_bytes(entry.path).values())
        except OSError as error:
            raise UserError(f"it cannot be deleted: {error.strerror}", where=entry.name) from error
        if what == FILES:
            self.host.refresh()
        left = () if what == STATE else tuple(sorted(_names(entry.path)))
        return Removed(before - after + elsewhere, left)

    def remove_file(self, name: str, file: str) -> Removed:
        """One model that a run has written, with the files that belong to it; `file` is its name without folder.

        Raises `UserError` when the run wrote none of that name, or another program's file stands there now.
        """
        entry = self.history.run(name)
        if self.history.running(entry.path):
            raise UserError(f"{entry.label} is running", where="run", fix="stop it first")
        known = next((one for one in self.history.log(entry).saved if Path(one).name == file), None)
        if known is None:
            raise UserError(f"this run has written no {file!r}", where="file", fix="choose one of the list")
        path = entry.path / known
        if path.is_file() and not written_here(path):
            raise UserError(f"{file} was not written by SD Train", where="file", fix="delete it yourself")
        count = path.stat().st_size if path.is_file() else 0
        try:
            self._remove_model(entry, Path(known))
        except OSError as error:
            raise UserError(f"it cannot be deleted: {error.strerror}", where=file) from error
        self.host.refresh()
        return Removed(count)

    def _remove_model(self, entry: RunEntry, file: Path) -> int:
        """Remove a model with its side files; how many bytes of it lay outside of the run's folder."""
        path = entry.path / file
        self.host.allowed_path(str(path), "file")
        if path.is_symlink() or not path.is_file() or path.suffix != _MODELS[0] or not written_here(path):
            return 0
        count = 0 if entry.path.resolve() in path.resolve().parents else path.stat().st_size
        for suffix in _MODELS:
            path.with_name(path.stem + suffix).unlink(missing_ok=True)
        return count


def written_here(path: Path) -> bool:
    """Whether a model file says of itself that SD Train made it."""
    from lib_sdtrain.model.metadata import OURS
    from lib_sdtrain.model.tensorfile import open_tensors

    try:
        with open_tensors(path) as tensors:
            return OURS in tensors.metadata
    except UserError:
        return False


def _remove_states(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.is_symlink() and path.is_dir() and _STATE.fullmatch(path.name):
            shutil.rmtree(path)
    _remove_if_empty(folder)


def _remove_own(folder: Path) -> None:
    for path in _previews(folder / "samples"):
        path.unlink()
    for name in ("samples", "checkpoints"):
        _remove_if_empty(folder / name)
    for name in _OWN_FILES:
        (folder / name).unlink(missing_ok=True)
    _remove_if_empty(folder)


def _previews(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from [path for path in folder.iterdir() if _PREVIEW.fullmatch(path.name) and not path.is_dir()]


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _names(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in file_bytes(folder))
