"""How good toybox is and what DreamBooth teaches it, read from its pictures by a judge that knows the truth."""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `bench quality`."""
    parser.add_argument("--checkpoint", default="toybox", help="toybox, or the file of another training of it")
    parser.add_argument("--folder", type=Path, help="where the two trainings go (default: temporary)")
    parser.add_argument("--pictures", type=Path, help="write contact sheets of what was judged into this folder")


def run(args: argparse.Namespace) -> int:
    """Measure, and print one line a number."""
    from lib_sdtrain.quality.measure import bench_quality

    with tempfile.TemporaryDirectory(prefix="sdtrain-bench-") as temporary:
        folder = args.folder or Path(temporary)
        return drive(
            lambda token: bench_quality(folder, token, args.checkpoint, args.pictures), args.json, _summary
        )


def _summary(document: dict[str, Any]) -> str:
    return "\n".join(
        f"{name}: {row['ours']:.3g} ({row['against']}: {row['baseline']:.3g}; {row['runs']} pictures)"
        for name, row in document.items()
    )
