"""What it costs to save the state that a run goes on from: the same run with and without, in turn."""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `bench states`."""
    parser.add_argument("--checkpoint", default="toybox", help="what to train on toybox's pictures (default: toybox)")
    parser.add_argument("--steps", type=int, default=1001, help="length of each run (default: 1001, two states)")
    parser.add_argument("--every", type=int, default=500, help="steps from state to state (default: 500)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")


def run(args: argparse.Namespace) -> int:
    """Measure, and print medians and their ratio."""
    from lib_sdtrain.train.bench.states import bench_states

    with tempfile.TemporaryDirectory(prefix="sdtrain-bench-") as folder:
        return drive(
            lambda token: bench_states(Path(folder), token, args.checkpoint, args.steps, args.every, args.runs),
            args.json, _summary,
        )


def _summary(document: dict[str, Any]) -> str:
    row = document["states"]
    return (
        f"{row['states']} states: {row['ours']:.2f} s, none: {row['baseline']:.2f} s, ratio {row['ratio']:.4f}, "
        f"median of {row['runs']} runs each"
    )
