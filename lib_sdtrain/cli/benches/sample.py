"""The time of a request with the model loaded, in turn with the WebUI's own time for the same request."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `bench sample`."""
    parser.add_argument("--checkpoint", default="toybox", metavar="FILE", help="the model (default: toybox)")
    parser.add_argument("--webui", metavar="FOLDER", default=os.environ.get("SDTRAIN_WEBUI"),
                        help="an installed WebUI to compare with (default: $SDTRAIN_WEBUI, else none)")
    parser.add_argument("--runs", type=int, default=5, help="counted requests of each side (default: 5)")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default: 20)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (default: 128)")
    parser.add_argument("--sampler", default="Euler a", help="the sampler (default: Euler a)")


def run(args: argparse.Namespace) -> int:
    """Measure, and print medians and ratios."""
    from lib_sdtrain.sample.bench.measure import SampleBench, bench_sample

    webui = Path(args.webui) if args.webui else None
    bench = SampleBench(args.checkpoint, webui, args.runs, args.steps, args.size, args.sampler)
    return drive(lambda token: bench_sample(bench, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    lines = []
    for name, row in document.items():
        if row["baseline"] is None:
            lines.append(f"{name}: {row['ours']:.2f} s (no WebUI was given to compare with)")
        else:
            lines.append(
                f"{name}: {row['ours']:.2f} s, the WebUI {row['baseline']:.2f} s, ratio {row['ratio']:.2f}; "
                f"of the processor {row['processor_ours']:.2f} s and {row['processor_baseline']:.2f} s, "
                f"ratio {row['processor_ratio']:.2f}"
            )
    return "\n".join(lines)
