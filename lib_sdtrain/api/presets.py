"""Presets: the shipped ones by name, and the user's own, one YAML file each."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.api.engine import Engine
from lib_sdtrain.durable import safe_name, write_atomically
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.parse import flatten
from lib_sdtrain.settings.run import RunSettings


@dataclass(frozen=True)
class PresetFolder:
    """The shipped presets of an engine and the user's own in `folder`."""

    engine: Engine
    folder: Path

    def names(self) -> list[str]:
        """Shipped presets first, then the user's own."""
        own = sorted(path.stem for path in self.folder.glob("*.yaml")) if self.folder.is_dir() else []
        shipped = list(self.engine.presets())
        return shipped + [name for name in own if name not in shipped]

    def title(self, name: str) -> str:
        """What people read: the title of a shipped preset, the name of their own."""
        return self.engine.presets().get(name, name)

    def named(self, title: str) -> str:
        """The preset's name from its title or name; text that is neither is left for `values` to judge."""
        return next((name for name in self.names() if title in (name, self.title(name))), title)

    def values(self, name: str) -> dict[str, Any]:
        """What a preset sets, by dotted path. Raises `UserError` for an unknown name or a broken file."""
        if not name:
            return {}
        problems = Problems()
        values = flatten(RunSettings, self._read(name), problems, where=name)
        problems.raise_if_any()
        return values

    def _read(self, name: str) -> Mapping[str, Any]:
        if name in self.engine.presets():
            return self.engine.preset(name)
        path = self.file(name)
        if not path.is_file():
            raise UserError(f"there is no preset {name!r}", where="preset", fix=f"known: {', '.join(self.names())}")
        return textfiles.read_mapping(path)

    def own(self, name: str) -> bool:
        """Whether a preset is one of the user's own."""
        return name not in self.engine.presets() and self.file(name).is_file()

    def file(self, name: str) -> Path:
        """The file of a preset of the user's own: one that is there by just this name, else as this page writes it."""
        there = f"{name}.yaml" in {path.name for path in self.folder.glob("*.yaml")}
        return self.folder / (f"{name}.yaml" if there else f"{safe_name(name)}.yaml")

    def delete(self, name: str) -> str:
        """Delete a preset of the user's own and return its name. Raises `UserError` for any other."""
        if not self.own(name):
            what = f"{name} is a shipped preset" if name in self.engine.presets() else f"there is no preset {name!r}"
            raise UserError(what, where="preset", fix="choose one of your own")
        path = self.file(name)
        try:
            path.unlink()
        except OSError as error:
            raise UserError(f"it cannot be deleted: {error.strerror}", where=name) from error
        return path.stem

    def save(self, name: str, values: Mapping[str, Any]) -> str:
        """Write a preset of the user's own and return its name. Raises `UserError` for a shipped one's name."""
        if not name.strip():
            raise UserError("it needs a name", where="preset", fix="write one beside the button")
        kept = safe_name(name)
        if kept in self.engine.presets():
            raise UserError(f"{kept} is a shipped preset", where="preset", fix="choose another name")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{kept}.yaml", textfiles.write_yaml(dict(values)).encode())
        except OSError as error:
            raise UserError(f"it cannot be written: {error}", where=str(self.folder)) from error
        return kept
