"""From plain nested data to a typed settings object, with every mistake reported at once."""
from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from lib_sdtrain.errors import Problem, Problems, UserError
from lib_sdtrain.settings.fields import Declared, declared, groups_of, item_class
from lib_sdtrain.settings.lengths import Length, parse_length

T = TypeVar("T")
WHOLE_ENTRIES = ("requests", "overrides")
"""Kinds of lists whose entries are mappings or whole texts: a text alone is one entry."""
_OFF = ("off", "none", "null", "")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def nearest(name: str, known: list[str]) -> str:
    """A hint naming the known name that looks most like `name`."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    last = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]]
    best = (last or close or [""])[0]
    return f"did you mean {best}?" if best else f"known names: {', '.join(sorted(known)[:12])} ..."


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in _YES + _NO:
        return raw.strip().lower() in _YES
    if isinstance(raw, int) and raw in (0, 1):
        return bool(raw)
    message = f"{raw!r} is neither true nor false"
    raise ValueError(message)


def _number(kind: type, raw: Any) -> float | int:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        message = f"{raw!r} is not a number"
        raise ValueError(message)
    try:
        value = float(raw)
    except (ValueError, OverflowError) as error:
        message = f"{raw!r} is not a number"
        raise ValueError(message) from error
    if not math.isfinite(value):
        message = f"{raw!r} is not a finite number"
        raise ValueError(message)
    if kind is int:
        if value != int(value):
            message = f"{raw!r} is not a whole number"
            raise ValueError(message)
        return int(raw) if isinstance(raw, int) else int(value)
    return value


def _text(item: Declared, raw: Any) -> str:
    if raw is False and "no" in item.meta.choices:  # YAML reads a bare `no` as false
        return "no"
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        message = f"{raw!r} is not text"
        raise ValueError(message)
    text = str(raw)
    if item.meta.choices and not item.meta.open_choices and text not in item.meta.choices:
        message = f"{text!r} is not one of {', '.join(item.meta.choices)}"
        raise ValueError(message)
    return text


def _in_range(item: Declared, value: float) -> float:
    low, high = item.meta.minimum, item.meta.maximum
    if low is not None and (value < low or (item.meta.exclusive_minimum and value <= low)):
        message = f"{value:g} is too small; at least {low:g}"
        if item.meta.exclusive_minimum:
            message = f"{value:g} is too small; it must be greater than {low:g}"
        raise ValueError(message)
    if high is not None and value > high:
        message = f"{value:g} is too large; at most {high:g}"
        raise ValueError(message)
    return value


def _scalar(item: Declared, kind: Any, raw: Any) -> Any:
    if kind is bool:
        return _bool(raw)
    if kind in (int, float):
        return _in_range(item, _number(kind, raw))
    if kind is Length:
        length = parse_length(raw)
        _in_range(item, length.amount)
        return length
    if kind is str:
        return _text(item, raw)
    message = f"unsupported declaration {kind}"
    raise TypeError(message)


def _tuple(item: Declared, raw: Any) -> tuple[Any, ...]:
    element = typing.get_args(item.type)[0]
    if isinstance(raw, str) and item.meta.kind not in WHOLE_ENTRIES:
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    elif isinstance(raw, (str, Mapping, int, float)) and not isinstance(raw, bool):
        raw = [raw]
    if not isinstance(raw, (list, tuple)):
        message = f"{raw!r} is not a list"
        raise ValueError(message)
    if element is Any:
        return tuple(raw)
    return tuple(_scalar(item, element, part) for part in raw)


def parse_value(item: Declared, raw: Any) -> Any:
    """The typed value of one setting; ValueError says what is wrong with `raw`."""
    if item.optional and (raw is None or raw is False or (isinstance(raw, str) and raw.strip().lower() in _OFF)):
        return None
    if raw is None:
        message = "a value is needed"
        raise ValueError(message)
    if typing.get_origin(item.type) is tuple:
        return _tuple(item, raw)
    if typing.get_origin(item.type) is dict or item.type is dict:
        if not isinstance(raw, Mapping):
            message = f"{raw!r} is not a mapping of names to values"
            raise ValueError(message)
        return dict(raw)
    return _scalar(item, item.type, raw)


def _items(item: Declared, raw: Any, problems: Problems) -> tuple[Any, ...]:
    cls = item_class(item)
    if isinstance(raw, Mapping):
        raw = [raw]
    if not isinstance(raw, (list, tuple)):
        problems.add(f"{raw!r} is not a list", where=item.path)
        return ()
    built = []
    for index, entry in enumerate(raw):
        where = f"{item.path}.{index}"
        if isinstance(entry, cls):
            built.append(entry)
        elif isinstance(entry, Mapping):
            try:
                built.append(build(cls, entry, where))
            except UserError as error:
                problems.absorb(error)
        else:
            problems.add(f"{entry!r} is not a mapping of names to values", where=where)
    return tuple(built)


def flatten(cls: type, data: Mapping[str, Any], problems: Problems, where: str = "") -> dict[str, Any]:
    """Raw values by dotted path. Both nesting and dotted keys are accepted; unknown names are problems."""
    by_path = {item.path: item for item in declared(cls)}
    group_paths = {name.path for name in groups_of(cls)}
    flat: dict[str, Any] = {}

    def visit(mapping: Mapping[str, Any], prefix: str) -> None:
        for key, value in mapping.items():
            path = f"{prefix}{key}"
            if path in by_path:
                flat[path] = value
            elif path in group_paths and isinstance(value, Mapping):
                visit(value, path + ".")
            elif path in group_paths and value is None:
                continue
            elif path in group_paths:
                problems.add(f"{value!r} is not a mapping of names to values", where=_at(where, path))
            else:
                problems.add("unknown setting", where=_at(where, path), fix=nearest(path, list(by_path)))

    visit(data, "")
    return flat


def _at(where: str, path: str) -> str:
    return f"{where}.{path}" if where else path


def build(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """A settings object of `cls` from nested data; what is absent takes its default.

    Raises `UserError` with every unknown name and wrong value.
    """
    problems = Problems()
    flat = flatten(cls, data, problems, where)
    values: dict[str, Any] = {}
    for item in declared(cls):
        if item.path not in flat:
            if item.default is dataclasses.MISSING:
                problems.add("a value is needed", where=_at(where, item.path), fix=item.meta.help)
            continue
        if item_class(item):
            values[item.path] = _items(dataclasses.replace(item, path=_at(where, item.path)), flat[item.path], problems)
            continue
        try:
            values[item.path] = parse_value(item, flat[item.path])
        except ValueError as error:
            problems.found.append(Problem(str(error), where=_at(where, item.path)))
    problems.raise_if_any()
    return assemble(cls, values)


def assemble(cls: type[T], values: Mapping[str, Any]) -> T:
    """A settings object from typed values by dotted path."""
    own = {path: value for path, value in values.items() if "." not in path}
    for part in groups_of(cls):
        head = part.path + "."
        nested = {path[len(head):]: value for path, value in values.items() if path.startswith(head)}
        own[part.path] = assemble(part.type, nested)
    return cls(**own)
