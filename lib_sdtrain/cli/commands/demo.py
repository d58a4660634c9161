"""The whole way on the built-in model: train a subject, merge it into its parent by block, draw a contact sheet.

Writes outputs/demo/run/ (a run directory), outputs/demo/merged.safetensors and outputs/demo/contact-sheet.png,
then opens the tab.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from lib_sdtrain.cli.run import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `demo`."""
    parser.add_argument("--no-ui", action="store_true", help="end when the files are there")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), metavar="DIR", help="default: outputs/demo")


def run(args: argparse.Namespace) -> int:
    """Run the demo's jobs one after the other; the first that does not end well ends it."""
    from lib_sdtrain.cli.demo import draw_contact_sheet, make_merge, make_run
    from lib_sdtrain.train.allocator import keep_freed_memory

    keep_freed_memory()
    for job in (make_run, make_merge, draw_contact_sheet):
        code = job(args.out, args.json)
        if code != DONE:
            return code
    if args.no_ui:
        return DONE
    from lib_sdtrain.ui.standalone import launch

    launch("127.0.0.1", 7870, tell=lambda address: print(f"SD Train is at {address}", flush=True))
    return DONE
