"""A DreamBooth step, in turn with a plain loop of what stock trainers do in one."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `bench train`."""
    parser.add_argument("--model", default="toybox", metavar="toybox|sd1|sd2|sdxl|FILE",
                        help="what is trained; a family means random weights of its published size, for which a full "
                        "training needs 15 GB of memory and of disk (SDXL 50 GB) (default: toybox)")
    parser.add_argument("--method", choices=("full", "lora"), default="full", help="what is trained (default: full)")
    parser.add_argument("--text-encoder", action=argparse.BooleanOptionalAction, default=True,
                        help="train the text encoder too (default: yes)")
    parser.add_argument("--resolution", type=int, default=128, metavar="N", help="of the pictures (default: 128)")
    parser.add_argument("--steps", type=int, default=15, help="counted steps of each run (default: 15)")
    parser.add_argument("--runs", type=int, default=5, help="processes of each side (default: 5)")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's place)")


def run(args: argparse.Namespace) -> int:
    """Measure, and print medians and their ratio."""
    from lib_sdtrain.train.bench.measure import TrainBench, bench_train

    bench = TrainBench(args.model, args.method, args.text_encoder, args.resolution, args.steps, args.runs)
    return drive(lambda token: bench_train(bench, token, args.folder), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    lines = []
    for name, row in document.items():
        lines.append(f"{name}: {row['ours']:.3f} s a step, baseline {row['baseline']:.3f} s, ratio {row['ratio']:.3f}"
                     + _if_told(", of the processor's time {:.3f}", row["processor_ratio"])
                     + f" (medians of {row['runs']} runs of {row['steps']} steps)")
        lines += [_side(row, side) for side in ("ours", "baseline")]
    return "\n".join(lines)


def _side(row: dict[str, Any], side: str) -> str:
    return (
        f"  {side}: fastest step {row[f'fastest_{side}']:.3f} s"
        + _if_told(", {:.3f} s of processor a step", row[f"processor_{side}"])
        + f", first step done after {row[f'first_step_{side}']:.1f} s, {row[f'memory_{side}'] / 1e6:,.0f} MB"
        + _if_told(", {:,.0f} page faults a step", row[f"faults_{side}"])
    )


def _if_told(text: str, value: float | None) -> str:
    return "" if value is None else text.format(value)
