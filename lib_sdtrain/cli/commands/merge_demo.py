"""Two fine-tunes of toybox, merged by block with both presets of AnimeDiffusion's card, and pictures of all of them.

Writes both runs, high-res_replace.safetensors, low-res_replace.safetensors and contact-sheet.png.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from lib_sdtrain.cli.run import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `merge-demo`."""
    parser.add_argument("--out", type=Path, default=Path("outputs/merge-demo"), metavar="DIR",
                        help="default: outputs/merge-demo")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train, merge and draw, one after the other; the first that does not end well ends it."""
    from lib_sdtrain.cli.merge_demo import STYLES, draw_sheet, fine_tune, merge_both
    from lib_sdtrain.train.allocator import keep_freed_memory

    keep_freed_memory()
    jobs = [lambda style=style: fine_tune(style, args.out, args.json) for style in STYLES]
    jobs += [lambda: merge_both(args.out, args.json), lambda: draw_sheet(args.out, args.json)]
    for job in jobs:
        code = job()
        if code != DONE:
            return code
    return DONE
