"""What data sets cost: opening, drawing samples, decoding pictures against plain Pillow."""
from __future__ import annotations

import argparse
from typing import Any

from lib_sdtrain.cli.run import drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `bench data`."""
    parser.add_argument("--known", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000], metavar="N",
                        help="made-up data sets of so many known pictures (default: 1000 to 1000000)")
    parser.add_argument("--files", type=int, default=2000, help="small picture files to write and read (default: 2000)")
    parser.add_argument("--runs", type=int, default=5, help="rounds of the comparison with Pillow (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table."""
    from lib_sdtrain.data.bench import DataBench, bench_data

    bench = DataBench(tuple(args.known), max(1, args.files), max(1, args.runs))
    return drive(lambda token: bench_data(bench, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    lines = ["pictures        first reading   opening again   a picture     a draw     memory"]
    for name, row in document.items():
        if "opening" in row:
            kind, _, count = name.partition("_")
            first = f"{row['reading_a_picture']:.0f} us each" if "reading_a_picture" in row else "-"
            memory = "-" if row["memory"] is None else f"{row['memory'] / 1e6:.0f} MB"
            lines.append(f"{int(count):>9,} {kind:<6}{first:>13}{row['opening']:>14.2f} s"
                         f"{row['opening_a_picture']:>11.1f} us{row['draw']:>8.0f} us{memory:>11}")
    row = document["decode_resize_crop"]
    lines.append(f"decode, resize, crop: {row['ours'] * 1000:.1f} ms a picture, Pillow alone "
                 f"{row['baseline'] * 1000:.1f} ms: {1 / row['ratio']:.2f} of its throughput "
                 f"(by the processor's time {1 / row['processor_ratio']:.2f})")
    return "\n".join(lines)
