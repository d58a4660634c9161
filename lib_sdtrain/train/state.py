"""The resumable state: tensors in safetensors, the rest in JSON, one complete state always on disk.

A state is a folder `state/000500/` that appears by a rename when both files in it are on disk and read back
with the right checksum; only then is the previous one removed.
"""
from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.durable import fsync_path, write_atomically
from lib_sdtrain.errors import UserError
from lib_sdtrain.model.hashes import sha256
from lib_sdtrain.model.mapped import load_tensor, read_safetensors
from lib_sdtrain.model.writer import CheckpointWriter, file_size, specs_of
from lib_sdtrain.textfiles import parse_json

FORMAT = 1
TENSORS = "tensors.safetensors"
FACTS_BYTES = 2**20  # what the JSON is taken for; that of 10,000 pictures is as large


@dataclass(frozen=True)
class State:
    """What a run goes on from. `facts` are plain JSON data, `tensors` weights and optimiser moments."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class SavedState:
    """A complete state on disk whose checksum is right; its tensors are read when they are needed."""

    facts: dict[str, Any]
    path: Path

    def load(self, under: tuple[str, ...] = ("",)) -> State:
        """The state in memory, only the tensors whose names begin with one of `under`."""
        # not by the safetensors library: 0.4.2, the WebUI's, keeps something of each tensor for good
        entries = read_safetensors(self.path / TENSORS).tensors
        return State(self.facts, {
            name: load_tensor(entry).clone() for name, entry in entries.items() if name.startswith(under)
        })


def save_state(folder: Path, step: int, state: State) -> Path:
    """Write `folder/<step>/` and remove older ones. The state's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    final = _free_name(folder, step)
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write_files(temporary, state)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(folder)
    for other in folder.iterdir():
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def _free_name(folder: Path, step: int) -> Path:
    """`000500`, or `000500.1`... when that step was saved before, so that a complete state always stands."""
    path, number = folder / f"{step:06d}", 0
    while path.exists():
        number += 1
        path = folder / f"{step:06d}.{number}"
    return path


def state_bytes(state: State) -> int:
    """Bytes that the state takes on disk, nearly."""
    return file_size(specs_of(state.tensors), {}) + FACTS_BYTES


def _write_files(folder: Path, state: State) -> None:
    # one tensor at a time: a second copy of weights and moments would not fit where they just do
    with CheckpointWriter(folder / TENSORS, specs_of(state.tensors), {}, verify=True) as writer:
        for name in writer.keys:
            writer.write(name, state.tensors[name].detach())
    facts = {"format": FORMAT, "sha256": writer.result.sha256, "torch": torch.__version__, **state.facts}
    write_atomically(folder / "state.json", json.dumps(facts, indent=1).encode())


def newest_state(folder: Path) -> SavedState | None:
    """The newest complete state below `folder`, None when there is none. Raises as `open_state` does."""
    if not folder.is_dir():
        return None
    complete = [path for path in folder.iterdir() if path.name[:1].isdigit() and (path / "state.json").is_file()]
    return open_state(max(complete, key=_position)) if complete else None


def _position(path: Path) -> tuple[int, int]:
    step, _, number = path.name.partition(".")
    return int(step), int(number or 0)


def open_state(path: Path) -> SavedState:
    """Look at a state without keeping its tensors. Raises `UserError` when its checksum is wrong."""
    try:
        facts = parse_json((path / "state.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise UserError(f"state of another version ({facts['format']})", where=str(path))
        if sha256(path / TENSORS) != facts["sha256"]:
            raise UserError("the saved state is damaged (checksum)", where=str(path), fix="start the run again")
        read_safetensors(path / TENSORS)
        return SavedState(facts, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the saved state cannot be read: {error}", where=str(path)) from error
