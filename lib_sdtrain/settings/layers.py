"""Settings in layers: default < family < preset < the user's file < flags, each value with its origin."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.fields import declared, get_path, item_class
from lib_sdtrain.settings.idle import idle_paths
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.parse import build, flatten

T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """Nested (or dotted) raw values and the name people know them by: `preset toybox-dreambooth`, `--set`.

    What a layer that `gives_way`, a preset, says of a setting that later layers leave no use for is left out.
    """

    name: str
    values: Mapping[str, Any]
    gives_way: bool = False


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """The settings in force and, for each dotted path that is not a default, the layer it came from.

    `left_out`: what a layer said that gave way, path to layer.
    """

    settings: T
    origins: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def origin(self, path: str) -> str:
        """The layer's name, `default` where none set it."""
        return self.origins.get(path, "default")

    def notices(self) -> list[str]:
        """What to tell of that which was left out: a line a layer."""
        by_layer: dict[str, list[str]] = {}
        for path, name in self.left_out.items():
            by_layer.setdefault(name, []).append(path)
        return [f"left out of {name}, as nothing uses it with the other settings: {', '.join(paths)}"
                for name, paths in by_layer.items()]  # fmt: skip


def resolve(cls: type[T], layers: Sequence[Layer]) -> Resolved[T]:
    """Merge layers, the last one winning, and build the typed object.

    A path such as `data.concepts.0.weight` changes one entry of a list that an earlier layer gave.
    Raises `UserError` with the mistakes of all layers.
    """
    found, left_out = _merged(cls, layers), {}
    for number, layer in enumerate(layers):
        if layer.gives_way:
            idle = idle_paths(found.settings) - idle_paths(_merged(cls, layers[: number + 1]).settings)
            left_out |= {path: name for path, name in found.origins.items() if name == layer.name and path in idle}
    return replace(_merged(cls, layers, left_out), left_out=left_out) if left_out else found


def _merged(cls: type[T], layers: Sequence[Layer], left_out: Mapping[str, str] | None = None) -> Resolved[T]:
    problems, left_out = Problems(), left_out or {}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lists = {item.path for item in declared(cls) if item_class(item)}
    for layer in layers:
        plain, indexed = _split_indexed(layer.values, lists)
        for path, value in flatten(cls, plain, problems).items():
            if left_out.get(path) == layer.name:
                continue
            values[path] = copy.deepcopy(value)
            origins[path] = layer.name
        for path, (index, rest), value in indexed:
            _set_entry(values, path, index, rest, value, problems)
            origins[path] = layer.name
    try:
        settings = build(cls, values)
    except UserError as error:
        for problem in error.problems:
            problems.found.append(problem)
    problems.raise_if_any()
    return Resolved(settings, origins)


def _split_indexed(values: Mapping[str, Any], lists: set[str]) -> tuple[dict[str, Any], list[Any]]:
    plain, indexed = {}, []
    for key, value in values.items():
        owner = next((path for path in lists if str(key).startswith(path + ".")), None)
        index, _, rest = str(key)[len(owner) + 1:].partition(".") if owner else ("", "", "")
        if owner and index.isdigit() and rest:
            indexed.append((owner, (int(index), rest), value))
        else:
            plain[key] = value
    return plain, indexed


def _set_entry(values: dict[str, Any], path: str, index: int, rest: str, value: Any, problems: Problems) -> None:
    entries = values.setdefault(path, [])
    entries = values[path] = [entries] if isinstance(entries, Mapping) else list(entries or [])
    if index > len(entries):
        problems.add(f"there are only {len(entries)} entries before it", where=f"{path}.{index}.{rest}")
        return
    if index == len(entries):
        entries.append({})
    entries[index] = {**entries[index], rest: value}


def to_plain(instance: Any, only_changed: bool = False) -> dict[str, Any]:
    """Nested plain data (YAML- and JSON-ready) of a settings object; None is written `off` by YAML as null."""
    nested: dict[str, Any] = {}
    for item in declared(type(instance)):
        value = get_path(instance, item.path)
        if only_changed and value == item.default:
            continue
        *heads, last = item.path.split(".")
        place = nested
        for head in heads:
            place = place.setdefault(head, {})
        place[last] = _plain(value)
    return nested


def _plain(value: Any) -> Any:
    if isinstance(value, Length):
        return str(value) if value.unit != "steps" else int(value.amount)
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if hasattr(type(value), "__dataclass_fields__"):
        return to_plain(value, only_changed=True)
    return value


def describe_changes(old: Any, new: Any) -> list[str]:
    """One line a changed setting: `train.length: 10 -> 20`."""
    lines = []
    for item in declared(type(new)):
        before, after = get_path(old, item.path), get_path(new, item.path)
        if before != after:
            lines.append(f"{item.path}: {_shown(before)} -> {_shown(after)}")
    return lines


def _shown(value: Any) -> str:
    return "off" if value is None else str(_plain(value))
