"""Merge checkpoints, block by block, with the recipe written into the result."""
from __future__ import annotations

import argparse
from typing import Any

from lib_sdtrain.cli.flags import add_flags, given_values
from lib_sdtrain.cli.run import DONE, drive, show_document
from lib_sdtrain.cli.terminal import duration
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.parse import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `merge`."""
    add_flags(parser, MergeSettings)
    parser.add_argument("--list-methods", action="store_true", help="list the methods and their formulas")


def run(args: argparse.Namespace) -> int:
    """Merge, or list the methods."""
    if args.list_methods:
        return _list_methods(args.json)
    from lib_sdtrain import merge

    settings = build(MergeSettings, given_values(args, MergeSettings))
    return drive(lambda token: merge(settings, token), args.json, _summary)


def _list_methods(as_json: bool) -> int:
    from lib_sdtrain.merge.methods import all_methods

    fields = ("name", "title", "formula", "sentence", "source", "params", "models")
    methods = [{field: getattr(method, field) for field in fields} for method in all_methods().values()]
    show_document(methods, as_json, _methods_text)
    return DONE


def _methods_text(methods: list[dict[str, Any]]) -> str:
    return "\n".join(f"{m['name']}\n    {m['formula']}\n    {m['sentence']} ({m['source']})" for m in methods)


def _summary(document: dict[str, Any]) -> str:
    return f"{document['out']}  [{document['sha256'][:10]}]\nin {duration(document['seconds'])}"
