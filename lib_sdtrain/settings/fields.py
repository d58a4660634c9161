"""One declaration a setting: everything else (flag, YAML key, tab control, schema, table, message) derives from it.

A settings class is a frozen dataclass whose fields are made with `setting(...)` or `group(...)`:

    @dataclass(frozen=True)
    class TrainGroup:
        batch_size: int = setting(1, "Batch size", "Pictures a step.", minimum=1, unit="pictures")

Supported types: bool, int, float, str, Length, the same with `| None` (written `off`), tuples of them,
tuples of nested settings classes, and plain mappings.
"""
from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any

from lib_sdtrain.settings.applies import Either, When

BASIC, ADVANCED = "basic", "advanced"
#: Kinds of settings whose values are paths.
PATH_KINDS = ("folder", "file", "path", "vae")


@dataclass(frozen=True)
class Meta:
    """What people see of a setting. `kind` refines the type for the tab: path, folder, text, color, requests.

    `example` is an entry of a list of mappings. With `open_choices` other texts than the `choices` are possible values
    too. `applies`: all that must be so for it to matter.
    """

    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    open_choices: bool = False
    level: str = ADVANCED
    kind: str = ""
    default_text: str = ""
    example: str = ""
    exclusive_minimum: bool = False
    applies: tuple[When | Either, ...] = ()


@dataclass(frozen=True)
class Declared:
    """A setting found in a settings class: dotted `path`, python `type` (without None), whether None is allowed."""

    path: str
    type: Any
    optional: bool
    default: Any
    meta: Meta

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Group:
    """A named part of a settings class."""

    path: str
    type: type
    label: str
    help: str


def setting(default: Any, label: str, help: str, **meta: Any) -> Any:  # noqa: A002 - the field's own word
    """Declare a setting; `meta` are the fields of `Meta`."""
    metadata = {"setting": Meta(label, help, **meta)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(cls: type, label: str, help: str = "") -> Any:  # noqa: A002
    """Declare a nested group of settings."""
    return dataclasses.field(default_factory=cls, metadata={"group": (label, help)})


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kept = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(kept) == 1:
            return kept[0], True
    return annotation, False


@cache
def groups_of(cls: type) -> tuple[Group, ...]:
    """The direct groups of a settings class, in order."""
    hints = typing.get_type_hints(cls)
    return tuple(
        Group(field.name, hints[field.name], *field.metadata["group"])
        for field in dataclasses.fields(cls)
        if "group" in field.metadata
    )


@cache
def declared(cls: type, prefix: str = "") -> tuple[Declared, ...]:
    """Every setting of `cls` and its groups, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    found: list[Declared] = []
    for field in dataclasses.fields(cls):
        path = prefix + field.name
        if "group" in field.metadata:
            found.extend(declared(hints[field.name], path + "."))
        elif "setting" in field.metadata:
            kind, optional = _without_none(hints[field.name])
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            found.append(Declared(path, kind, optional, default, field.metadata["setting"]))
    return tuple(found)


def item_class(item: Declared) -> type | None:
    """The settings class of the elements of a tuple-of-settings field, else None."""
    if typing.get_origin(item.type) is tuple:
        element = typing.get_args(item.type)[0]
        if dataclasses.is_dataclass(element) and any("setting" in f.metadata for f in dataclasses.fields(element)):
            return element
    return None


def get_path(instance: Any, path: str) -> Any:
    """The value at a dotted path of a settings object."""
    for part in path.split("."):
        instance = getattr(instance, part)
    return instance


def default_text(item: Declared) -> str:
    """How the default is written for people: `off` for None, or the declaration's own words."""
    if item.meta.default_text:
        return item.meta.default_text
    if item.default is None:
        return "off" if item.optional else "-"
    if isinstance(item.default, bool):
        return str(item.default).lower()
    if isinstance(item.default, tuple):
        return "none" if not item.default else ", ".join(map(str, item.default))
    return f"{item.default:g}" if isinstance(item.default, float) else str(item.default) or "-"
