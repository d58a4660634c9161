"""A block merge of two full models, in turn with the shortest loop that does the same work."""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `bench merge`."""
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each side (default: 3)")
    parser.add_argument("--model", choices=("sd1", "sdxl"), default="sd1", help="size of the models (default: sd1)")
    parser.add_argument("--folder", type=Path, help="empty, with room for three models (default: temporary)")


def run(args: argparse.Namespace) -> int:
    """Measure, and print medians and ratios."""
    from lib_sdtrain.merge.bench.measure import bench_merge

    with tempfile.TemporaryDirectory(prefix="sdtrain-bench-") as temporary:
        folder = args.folder or Path(temporary)
        return drive(lambda token: bench_merge(folder, token, args.runs, args.model), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    return "\n".join(
        f"{name}: {row['ours']:.2f} s, baseline {row['baseline']:.2f} s, ratio {row['ratio']:.2f}"
        for name, row in document.items()
    )
