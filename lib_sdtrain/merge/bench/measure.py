"""Running the merge engine and its baseline in turn, a process each, and comparing time and memory."""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started
from lib_sdtrain.merge.blocks import LAYOUTS

_LOOK_EVERY = 0.02


@dataclass(frozen=True)
class Run:
    """One process: seconds from start to end, seconds of processor, peak anonymous memory in bytes."""

    seconds: float
    processor: float
    anonymous: int


def run_process(command: list[str], environment: dict[str, str]) -> Run:
    """Run a command to its end and watch it. Raises `JobFailed` with the end of its output when it fails."""
    began, used = time.perf_counter(), _children_seconds()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment}, text=True
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(_LOOK_EVERY)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise JobFailed(f"{' '.join(command[:4])}: {process.stderr.read()[-500:]}")
    return Run(seconds, _children_seconds() - used, peak)


def anonymous_bytes(pid: int) -> int:
    """The anonymous memory of a process now; 0 where it has ended, or the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def bench_merge(folder: Path, token: CancelToken, runs: int = 3, name: str = "sd1") -> Iterator[Event]:
    """Merge two random models of full size by block, in turn with the baseline; ends with `Finished`.

    `folder` needs room for three models, and should be empty. The document has, for `merge_<name>`, medians
    in seconds of `ours` and `baseline`, their `ratio`, the number of `runs`, both processor times and both
    peaks of anonymous memory beyond a bare import of torch.
    """
    from lib_sdtrain.merge.bench.models import write_model

    folder.mkdir(parents=True, exist_ok=True)
    a, b, out = (folder / f"{part}.safetensors" for part in ("a", "b", "out"))
    yield Started(job="bench", total=runs)
    try:
        for number, path in enumerate((a, b)):
            yield Phase(name="writing random models", done=number, total=2, unit="models")
            write_model(path, name, number)
        commands = _commands(name, a, b, out)
        found: dict[str, list[Run]] = {part: [] for part in commands}
        for number in range(runs + 1):  # the first round warms the caches
            for part in sorted(commands, reverse=number % 2 == 1):
                token.check()
                yield Phase(name=f"running {part}", done=number, total=runs + 1, unit="rounds")
                out.unlink(missing_ok=True)
                os.sync()
                run = run_process(commands[part], {"XDG_CACHE_HOME": str(folder / "cache")})
                if number:
                    found[part].append(run)
    finally:
        for path in (a, b, out):
            path.unlink(missing_ok=True)
    yield Finished(result={f"merge_{name}": _document(found, runs)})


def _commands(name: str, a: Path, b: Path, out: Path) -> dict[str, list[str]]:
    count = len(LAYOUTS[name].names)
    weights = ",".join(f"{0.07 + 0.8 * number / count:.3f}" for number in range(count))
    python = [sys.executable, "-m"]
    return {
        "ours": [*python, "lib_sdtrain", "merge", "--a", str(a), "--b", str(b), "--weights-alpha", weights,
                 "--out", str(out)],
        "baseline": [*python, "lib_sdtrain.merge.bench.loop", str(a), str(b), str(out), weights],
        "import": [sys.executable, "-c", "import torch"],
    }  # fmt: skip


def _document(found: dict[str, list[Run]], runs: int) -> dict[str, Any]:
    seconds = {part: statistics.median(run.seconds for run in rows) for part, rows in found.items()}
    processor = {part: statistics.median(run.processor for run in rows) for part, rows in found.items()}
    memory = {part: max(run.anonymous for run in rows) for part, rows in found.items()}
    return {
        "ours": round(seconds["ours"], 3), "baseline": round(seconds["baseline"], 3),
        "ratio": round(seconds["ours"] / seconds["baseline"], 3), "runs": runs,
        "import_seconds": round(seconds["import"], 3),
        "processor_ours": round(processor["ours"], 3), "processor_baseline": round(processor["baseline"], 3),
        "peak_beyond_import_ours": memory["ours"] - memory["import"],
        "peak_beyond_import_baseline": memory["baseline"] - memory["import"],
    }  # fmt: skip
