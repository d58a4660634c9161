"""The environment: Python, packages, device, disk, what is missing, and what to do.

Exit code 1 when work would fail.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from lib_sdtrain.cli.doctor import examine, report
from lib_sdtrain.cli.run import DONE, FAILED, show_document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `doctor`."""
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR",
                        help="the folder that results will go to (default: outputs)")


def run(args: argparse.Namespace) -> int:
    """Print what is found."""
    document = examine(args.out)
    show_document(document, args.json, report)
    return DONE if document["ok"] else FAILED
