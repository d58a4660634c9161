"""What derives from the declarations for programs and readers: the JSON schema and the README's table."""
from __future__ import annotations

import typing
from typing import Any

from lib_sdtrain.settings.fields import Declared, declared, default_text, groups_of, item_class
from lib_sdtrain.settings.lengths import Length

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a settings class, nested as in YAML; unknown names are not allowed."""
    groups = {
        part.path: {**json_schema(part.type), "title": part.label, "description": part.help} for part in groups_of(cls)
    }
    own = {item.path: _property(item) for item in declared(cls) if "." not in item.path}
    return {"type": "object", "additionalProperties": False, "properties": groups | own}


def _property(item: Declared) -> dict[str, Any]:
    found: dict[str, Any] = {"title": item.meta.label, "description": item.meta.help, **_type(item)}
    if item.optional:
        found["type"] = [found["type"], "null"] if isinstance(found.get("type"), str) else [*found["type"], "null"]
    if item.meta.choices and item.meta.open_choices:
        found["examples"] = list(item.meta.choices)
    elif item.meta.choices:
        found["enum"] = [*item.meta.choices, *([None] if item.optional else [])]
    lowest = "exclusiveMinimum" if item.meta.exclusive_minimum else "minimum"
    limits = {lowest: item.meta.minimum, "maximum": item.meta.maximum} if item.type in (int, float) else {}
    return found | {name: limit for name, limit in limits.items() if limit is not None}


def _type(item: Declared) -> dict[str, Any]:
    nested = item_class(item)
    if nested:
        return {"type": "array", "items": json_schema(nested)}
    if typing.get_origin(item.type) is tuple:
        element = _TYPES.get(typing.get_args(item.type)[0])
        return {"type": "array", "items": {"type": element} if element else {}}
    if item.type is Length:
        return {"type": ["integer", "string"], "pattern": r"^\d[\d_,.eE]* *(steps?|epochs?|samples?)?$"}
    if item.type in _TYPES:
        return {"type": _TYPES[item.type]}
    return {"type": "object"}


def markdown_table(cls: type) -> str:
    """One row a setting: key, what it does, values, default. Settings inside lists follow as `list.N.name`."""
    rows = ["| setting | what it does | values | default |", "| --- | --- | --- | --- |"]
    rows += [_row(item, item.path) for item in _all_items(cls)]
    return "\n".join(rows) + "\n"


def _all_items(cls: type) -> list[Declared]:
    items = []
    for item in declared(cls):
        items.append(item)
        nested = item_class(item)
        if nested:
            items += declared(nested, f"{item.path}.N.")
    return items


def _row(item: Declared, path: str) -> str:
    return f"| `{path}` | {item.meta.help} | {_values(item)} | {default_text(item)} |".replace("  ", " ")


def _values(item: Declared) -> str:
    meta = item.meta
    if meta.choices:
        return ", ".join(meta.choices) + (", ..." if meta.open_choices else "")
    if item.type is bool:
        return "true, false"
    if item.type is Length:
        return "a length"
    low = "" if meta.minimum is None else f"{'over' if meta.exclusive_minimum else 'from'} {meta.minimum:g}"
    high = "" if meta.maximum is None else f"to {meta.maximum:g}"
    kinds = {int: "whole number", float: "number", str: meta.kind or "text"}
    kind = kinds.get(item.type, "list" if item_class(item) else "")
    return " ".join(part for part in (kind, low, high, meta.unit) if part)


def main() -> None:
    """Write the table between the README's markers (`python -m lib_sdtrain.settings.schema`)."""
    from pathlib import Path

    from lib_sdtrain.settings.run import RunSettings

    readme = Path(__file__).parents[2] / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition("<!-- settings:begin -->\n")
    _, end, after = rest.partition("<!-- settings:end -->")
    readme.write_text(before + begin + markdown_table(RunSettings) + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
