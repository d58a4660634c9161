"""What saving states costs: the same run with and without them, in turn, a process each."""
from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started

WITH, WITHOUT = "with", "without"


def bench_states(
    folder: Path, token: CancelToken, checkpoint: str, steps: int, every: int, rounds: int
) -> Iterator[Event]:
    """Train toybox's subject for `steps`, with a state every `every` steps and with none; ends with `Finished`.

    Medians of the seconds that the steps took, states in between, what comes before and after left out.
    """
    yield Started(job="bench", total=rounds)
    seconds: dict[str, list[float]] = {WITH: [], WITHOUT: []}
    for number in range(rounds):
        for kind in sorted(seconds, reverse=number % 2 == 1):
            token.check()
            yield Phase(name=f"training {kind} states", done=number, total=rounds, unit="rounds")
            run = folder / "runs" / f"{kind}-{number}"
            said = _train(run, checkpoint, steps, str(every) if kind == WITH else "null")
            seconds[kind].append(said["steps"] / said["steps_per_second"])
    ours, baseline = (statistics.median(seconds[kind]) for kind in (WITH, WITHOUT))
    row = {"ours": ours, "baseline": baseline, "ratio": ours / baseline, "runs": rounds, "every": every,
           "states": (steps - 1) // every, "all": seconds}  # fmt: skip
    yield Finished(result={"states": row})


def _train(run: Path, checkpoint: str, steps: int, every: str) -> dict[str, Any]:
    """The document of a run. Raises `JobFailed` with the end of what it said."""
    values = {
        "model.checkpoint": checkpoint, "train.length": str(steps), "save.state_every": every, "preview.every": "null",
        "preview.prompts": "[]",
    }
    command = [sys.executable, "-m", "lib_sdtrain", "train", "--preset", "toybox-dreambooth", "--run-dir", str(run),
               "--json"]  # fmt: skip
    for name, value in values.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise JobFailed(done.stderr[-500:], where="train")
    return json.loads(done.stdout)
