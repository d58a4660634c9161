"""Presets of a training run: files that come with SD Train, and files that users keep and share.

A preset file is settings as YAML; its first comment line is its title. `{toybox}` in a path stands for the folder
of the built-in model, its subject and its class.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_file
from lib_sdtrain.settings.parse import nearest

FOLDER = Path(__file__).parent
TOYBOX = FOLDER.parent / "toybox"


def preset_names() -> list[str]:
    """Names of the presets that come with SD Train."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset, by its name or as a path. Raises `UserError` naming the nearest known one."""
    if name in preset_names():
        return FOLDER / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml", ".json") and is_file(Path(name)):
        return Path(name)
    raise UserError("no such preset", where=name, fix=nearest(name, preset_names()))


def read_preset(name: str, toybox: Path = TOYBOX) -> dict[str, Any]:
    """The settings of a preset; `toybox` is the folder of the subject and the class."""
    path = preset_path(name)
    values = textfiles.read_mapping(path)
    return _with_places(values, toybox) if path.parent == FOLDER else values


def _with_places(value: Any, toybox: Path) -> Any:
    if isinstance(value, dict):
        return {key: _with_places(part, toybox) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_places(part, toybox) for part in value]
    return value.replace("{toybox}", toybox.as_posix()) if isinstance(value, str) else value


def preset_title(name: str) -> str:
    """The first comment of the file: what the preset is for."""
    first = textfiles.read_text(preset_path(name)).partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else name
