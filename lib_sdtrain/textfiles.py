"""Reading YAML and JSON that a user wrote, with errors that name file and line.

Only plain data is accepted: no tags, no aliases (a few aliases can expand to gigabytes), bounded size.
"""
from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_file

MAX_BYTES = 4 * 2**20


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases; a repeated key is a mistake, and `1e-6` is a number as in YAML 1.2."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not accepted", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


    def construct_number(self, node: Any) -> int | float:
        """A number that is not written to base 60 (`1:30`), as YAML 1.1 has it: `1:10` is text to people, and a
        megabyte of it takes hours to work out."""
        if ":" in node.value:
            raise yaml.constructor.ConstructorError(None, None, f"{node.value[:20]} is no number", node.start_mark)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


_NUMBERS = {
    "tag:yaml.org,2002:int": r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$",
    "tag:yaml.org,2002:float": r"^(?:[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
    r"|[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
}


def _set_numbers() -> None:
    import re

    kept = {first: [rule for rule in rules if rule[0] not in _NUMBERS]
            for first, rules in _PlainLoader.yaml_implicit_resolvers.items()}  # fmt: skip
    _PlainLoader.yaml_implicit_resolvers = kept
    for tag, pattern in _NUMBERS.items():
        _PlainLoader.add_implicit_resolver(tag, re.compile(pattern), list("-+0123456789."))
        _PlainLoader.add_constructor(tag, _PlainLoader.construct_number)


_set_numbers()


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The file's text as UTF-8 (a byte-order mark is dropped).

    Raises `UserError` when it is missing, not a file, larger than `limit` bytes or not UTF-8.
    """
    if not is_file(path):
        raise UserError("no such file", where=str(path), fix="check the path")
    size = path.stat().st_size
    if size > limit:
        raise UserError(f"{size:,} bytes is too large for a text file here", where=str(path))
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start})", where=str(path), fix="save it as UTF-8") from error


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML (JSON is YAML too). Raises `UserError` naming the line."""
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - derives from SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UserError(f"not valid YAML: {error.problem}", where=f"{where}, line {line}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"not valid YAML: {error}".splitlines()[0], where=where) from error


def parse_json(text: str | bytes) -> Any:
    """Plain data from JSON. Raises `ValueError`, also where it is nested so deeply that Python gives up."""
    try:
        return json.loads(text)
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file whose top level is a mapping (an empty file is an empty mapping)."""
    data = parse_yaml(read_text(path), str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError("the top level must be a mapping of names to values", where=str(path))
    return data


def write_yaml(data: Any) -> str:
    """YAML text in the order given."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def plain_json(value: Any) -> Any:
    """Data as JSON can say it: numbers that are not finite become null (JSON has no NaN), paths text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def write_json(data: Any) -> str:
    """One-line-a-value JSON text, in the order given."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
