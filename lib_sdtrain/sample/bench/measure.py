"""Both sides asked in turn (ours first, theirs first, ...), and what it cost them."""
from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started
from lib_sdtrain.model.checkpoint import find_checkpoint
from lib_sdtrain.places import exists
from lib_sdtrain.sample.bench.sides import Cost, Side, our_side, webui_side

_PROMPT, _NEGATIVE = "a photo of a cat on a beach, best quality", "blurry, bad quality"


@dataclass(frozen=True)
class SampleBench:
    """What is measured: `runs` counted requests of each side, after one that warms up."""

    checkpoint: str = "toybox"
    webui: Path | None = None
    runs: int = 5
    steps: int = 20
    size: int = 128
    sampler: str = "Euler a"


def bench_sample(bench: SampleBench, token: CancelToken) -> Iterator[Event]:
    """Draw the same request on both sides, seed after seed; ends with `Finished`.

    The document has medians in seconds of `ours` and, where there is a WebUI, `baseline` and their `ratio`, the same
    of the processor's seconds, and both processes' anonymous memory in bytes. Raises `UserError` for a missing file.
    """
    checkpoint = find_checkpoint(bench.checkpoint)
    if not exists(checkpoint):
        raise UserError(f"no such file: {bench.checkpoint}", where="--checkpoint", fix="check the path")
    yield Started(job="bench", total=bench.runs)
    found: dict[str, list[Cost]] = {}
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdtrain-bench-")))
        yield Phase(name="starting both sides", done=0, total=bench.runs, unit="rounds")
        sides: dict[str, Side] = {"ours": our_side(str(checkpoint))}
        stack.callback(sides["ours"].close)
        if bench.webui is not None:
            sides["baseline"] = webui_side(bench.webui, checkpoint, data)
            stack.callback(sides["baseline"].close)
        for number in range(bench.runs + 1):
            for name in sorted(sides, reverse=number % 2 == 1):
                token.check()
                yield Phase(name=f"drawing ({name})", done=number, total=bench.runs + 1, unit="rounds")
                cost = sides[name].cost(_body(bench, number))
                if number:  # the first round warms up
                    found.setdefault(name, []).append(cost)
    yield Finished(result={f"sample_{checkpoint.stem}_{bench.size}px_{bench.steps}": _document(found, bench.runs)})


def _body(bench: SampleBench, seed: int) -> dict[str, Any]:
    return {
        "prompt": _PROMPT, "negative_prompt": _NEGATIVE, "steps": bench.steps, "width": bench.size,
        "height": bench.size, "seed": seed, "sampler_name": bench.sampler, "send_images": False,
    }


def _document(found: dict[str, list[Cost]], runs: int) -> dict[str, Any]:
    def median(name: str, part: str) -> float | None:
        rows = found.get(name)
        return round(statistics.median(getattr(row, part) for row in rows), 3) if rows else None

    def ratio(part: str) -> float | None:
        ours, theirs = median("ours", part), median("baseline", part)
        return round(ours / theirs, 3) if ours and theirs else None

    return {
        "ours": median("ours", "seconds"), "baseline": median("baseline", "seconds"), "ratio": ratio("seconds"),
        "runs": runs, "processor_ours": median("ours", "processor"),
        "processor_baseline": median("baseline", "processor"), "processor_ratio": ratio("processor"),
        "memory_ours": median("ours", "memory"), "memory_baseline": median("baseline", "memory"),
    }
