"""The files of a merge: what a page's words stand for, and where the result goes."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.host.paths import is_path
from lib_sdtrain.host.protocol import Host, entry_called

SUFFIX = ".safetensors"
_LORA_FOLDERS = ("Lora", "LoRA", "models/Lora")


@dataclass(frozen=True)
class MergeFiles:
    """Names of a host's checkpoints, paths that a page may use, and names that are free."""

    host: Host

    def titles(self) -> list[str]:
        """What people choose from."""
        return [entry.title for entry in self.host.checkpoints()]

    def checkpoint(self, text: str, where: str) -> str:
        """The engine's name of a checkpoint (a path, or `toybox`) from a title, a name or a path.

        Raises `UserError` for a path that this page may not use, and for what is no text.
        """
        entry = entry_called(self.host.checkpoints(), text_of(text, where))
        return entry.name if entry else str(self.host.allowed_path(text.strip(), where))

    def path(self, text: str, where: str) -> Path:
        """The file of a checkpoint from a title, a name or a path."""
        entry = entry_called(self.host.checkpoints(), text_of(text, where))
        return entry.path if entry else self.host.allowed_path(text.strip(), where)

    def title(self, path: Path) -> str:
        """What people call a file: its title in the host's list, or the path."""
        entry = next((one for one in self.host.checkpoints() if one.path == path), None)
        return entry.title if entry else str(path)

    def weights(self, text: str, where: str) -> str:
        """Weights of blocks as they are. Raises `UserError` where they are in a file that this page may not read."""
        given = text_of(text, where)
        for file in (given, given.rpartition(":")[0]):  # FILE, FILE:NAME
            if is_path(file):
                self.host.allowed_path(file, where)
        return given

    def many(self, values: str | Sequence[str], where: str) -> list[str]:
        """Several checkpoints, LoRAs (`FILE:WEIGHT`) or preset files, from a list or a text of lines.

        Preset files may stand on one line, with commas between them.

        Raises `UserError` with every mistake.
        """
        apart = ",\n" if where == "presets" else "\n"  # block weights of a LoRA have commas too
        lines = re.split(f"[{apart}]", values) if isinstance(values, str) else list(values)
        problems, found = Problems(), []
        for given in lines:
            try:
                if not (line := text_of(given, where).strip()):
                    continue
                if where == "model":
                    found.append(self.checkpoint(line, where))
                else:
                    found.append(self._lora(line) if where == "lora" else str(self.host.allowed_path(line, where)))
            except UserError as error:
                problems.absorb(error)
        problems.raise_if_any()
        return found

    def _lora(self, line: str) -> str:
        from lib_sdtrain.merge.inputs import split_lora

        file, weight, blocks = split_lora(line)
        path = self._lora_named(str(file)) or self.host.allowed_path(str(file), "lora")
        blocks = blocks and self.weights(blocks, "lora")
        return f"{path}:{weight!r}:{blocks}" if blocks else f"{path}:{weight!r}"

    def _lora_named(self, name: str) -> Path | None:
        """A LoRA by its name alone, from the host's folder, the one beside the checkpoints, or models/Lora."""
        folder = self.host.checkpoint_dir()
        around = folder.parent if folder else self.host.output_dir().parent
        own = self.host.lora_dir()
        roots = [*([own] if own else []), *(around / part for part in _LORA_FOLDERS)]
        files = (root / file for root in roots for file in (name, f"{name}{SUFFIX}"))
        return next((file for file in files if Path(name).name == name and file.is_file()), None)

    def folder(self) -> Path:
        """Where results go."""
        return self.host.checkpoint_dir() or self.host.output_dir() / "merges"

    def target(self, name: str, values: Mapping[str, Any]) -> Path:
        """The file to write: the given name, which must be free, or one made from the models that is.

        Raises `UserError` for a name that is taken: nothing is overwritten.
        """
        if not name.strip():
            return self.folder() / f"{self.free_name(values)}{SUFFIX}"
        stem = name.strip().removesuffix(SUFFIX)
        if safe_name(stem) != stem:
            fix = f"letters, digits, - _ and . only, for instance {safe_name(stem)}"
            raise UserError(f"{name.strip()} is not a file name for a checkpoint", where="name", fix=fix)
        path = self.folder() / f"{stem}{SUFFIX}"
        if path.exists():
            fix = "choose another name; nothing is overwritten"
            raise UserError(f"{path.name} is already there", where="name", fix=fix)
        return path

    def free_name(self, values: Mapping[str, Any]) -> str:
        """A name made from models and method that no file has yet."""
        stems = [Path(str(values[role])).stem for role in ("a", "b", "c") if values.get(role)]
        stem = safe_name("-".join([*(part[:24] for part in stems), str(values.get("method", "merge"))]))
        number, free = 1, stem
        while (self.folder() / f"{free}{SUFFIX}").exists():
            number += 1
            free = f"{stem}-{number}"
        return free


def text_of(given: object, where: str) -> str:
    """What was given as a name or a path. Raises `UserError` for anything but text."""
    if not isinstance(given, str):
        raise UserError(f"{str(given)[:60]!r} is no text", where=where, fix="give names or paths")
    return given
