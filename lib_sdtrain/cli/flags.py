"""Command-line flags made from declared settings: one flag a setting, help and all."""
from __future__ import annotations

import argparse
import typing
from collections.abc import Iterable
from typing import Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.fields import Declared, declared, default_text, groups_of


def flag_name(item: Declared) -> str:
    """`--clip-skip` for `clip_skip`; dots become dashes too."""
    return "--" + item.path.replace("_", "-").replace(".", "-")


def flag_help(item: Declared) -> str:
    """Help, choices, range, unit and default in one line."""
    meta = item.meta
    parts = [meta.help.rstrip(".")]
    if meta.choices:
        parts.append(f"one of {', '.join(meta.choices)}")
    if meta.minimum is not None and meta.maximum is not None:
        parts.append(f"{meta.minimum:g} to {meta.maximum:g}" + (f" {meta.unit}" if meta.unit else ""))
    parts.append(f"default: {default_text(item)}")
    return "; ".join(parts).replace("%", "%%")


def add_flags(parser: argparse.ArgumentParser, cls: type, skip: Iterable[str] = ()) -> None:
    """A flag for every setting of `cls` but those named in `skip`. Absent flags leave no value.

    Flags of lists take several values and may be repeated.
    """
    for item in declared(cls):
        if item.path in skip:
            continue
        options: dict[str, Any] = {"dest": item.path, "default": argparse.SUPPRESS, "help": flag_help(item)}
        if item.type is bool:
            parser.add_argument(flag_name(item), action=argparse.BooleanOptionalAction, **options)
            continue
        options["metavar"] = item.name.upper()
        if typing.get_origin(item.type) is tuple:
            parser.add_argument(flag_name(item), action="extend", nargs="+", **options)
        else:
            parser.add_argument(flag_name(item), **options)


def given_values(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Raw values by dotted path of the flags that were given."""
    return {item.path: getattr(args, item.path) for item in declared(cls) if hasattr(args, item.path)}


def settings_text(cls: type, prefix: str = "") -> str:
    """Every setting with its help, for the end of `train --help`."""
    lines = []
    titles = {part.path: part.label for part in groups_of(cls)}
    group = None
    for item in declared(cls):
        head = item.path.partition(".")[0]
        if head != group and head in titles:
            lines.append(f"\n{titles[head]}")
            group = head
        lines.append(f"  {prefix}{item.path}\n      {flag_help(item)}")
    return "\n".join(lines).replace("%%", "%")


def parse_assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """Values of `--set KEY=VALUE`; VALUE is read as YAML. Raises `UserError`."""
    from lib_sdtrain.textfiles import parse_yaml

    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{pair!r} is not KEY=VALUE", where="--set", fix="for instance --set train.length=500")
        values[key.strip()] = parse_yaml(text, f"--set {key.strip()}")
    return values
