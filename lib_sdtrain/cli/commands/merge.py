"""Merge checkpoints, block by block, with the recipe written into the result."""
from __future__ import annotations

import argparse
from typing import Any

from lib_sdtrain.cli.flags import add_flags, given_values
from lib_sdtrain.cli.run import drive
from lib_sdtrain.cli.terminal import duration
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.parse import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `merge`."""
    add_flags(parser, MergeSettings)
    parser.add_argument("--list-methods", action="store_true", help="list the methods and their formulas")


def run(args: argparse.Namespace) -> int:
    """Merge, or list the methods."""
    from lib_sdtrain.merge import merge

    settings = build(MergeSettings, given_values(args, MergeSettings))
    return drive(lambda token: merge(settings, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    return f"{document['out']}  [{document['sha256'][:10]}]\nin {duration(document['seconds'])}"
