"""Measure this machine: our own work in turn with a baseline, as ratios of medians."""
from __future__ import annotations

import argparse
import importlib

from lib_sdtrain.cli.benches import BENCHES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command for every measurement, with flags of its own."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="|".join(BENCHES))
    for name, text in BENCHES.items():
        module = importlib.import_module(f"lib_sdtrain.cli.benches.{name}")
        kind = kinds.add_parser(name, help=text, description=module.__doc__, allow_abbrev=False)
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        module.add_arguments(kind)
        kind.set_defaults(measure=module.run)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for."""
    return args.measure(args)
