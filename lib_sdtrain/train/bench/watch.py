"""A training process seen from outside: when its steps ended, what memory and how much of the processor they took."""
from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.events import CancelToken, Event, Phase, event_of
from lib_sdtrain.merge.bench.measure import anonymous_bytes

WARM_UP = 3
"""So many first steps are not counted: they fill caches and the allocator."""
_LOOK_EVERY = 0.05


@dataclass(frozen=True)
class Watched:
    """Seconds of each counted step, and from the start of the process to the end of its first step; the peak of
    anonymous memory in bytes; seconds of processor and minor page faults a step, None where the system does not tell.
    """

    seconds: tuple[float, ...]
    first: float
    anonymous: int
    processor: float | None
    faults: float | None


def watch(
    name: str, command: Sequence[str], events: Path, steps: int, environment: Mapping[str, str], token: CancelToken
) -> Generator[Event, None, Watched]:
    """Run a command until its file of `events` tells of so many `steps`, more than `WARM_UP`, and end it then.

    Raises `JobFailed` with the end of what it said when it ends before, `Cancelled` when the user wants to stop.
    """
    log = events.with_name(f"{name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    ends: list[float] = []
    used: dict[int, tuple[float, int]] = {}
    peak, began = 0, time.time()
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **environment})
    try:
        while len(ends) < steps:
            token.check()
            alive = process.poll() is None
            peak = max(peak, anonymous_bytes(process.pid))
            before, ends = len(ends), step_ends(events)
            if len(ends) > before:
                yield Phase(name=f"training ({name})", done=len(ends), total=steps, unit="steps")
                if (found := _used(process.pid)) is not None:
                    used[len(ends)] = found
            elif not alive:
                raise JobFailed(log.read_text("utf-8", "replace")[-500:], where=f"bench train, {name}")
            time.sleep(_LOOK_EVERY)
    finally:
        process.kill()
        process.wait()
    processor, faults = (a_step({step: both[part] for step, both in used.items()}) for part in (0, 1))
    return Watched(counted(ends), ends[0] - began, peak, processor, faults)


def step_ends(events: Path) -> list[float]:
    """The times at which the steps ended that a file of events tells of; none while there is no file."""
    if not events.exists():
        return []
    lines = events.read_bytes().split(b"\n")[:-1]  # the last one may be half written
    return [event["time"] for event in map(event_of, lines) if event and event["type"] == "step"]


def counted(ends: Sequence[float]) -> tuple[float, ...]:
    """The seconds of each step after `WARM_UP` steps, from when each step ended."""
    return tuple(after - before for before, after in pairwise(ends[WARM_UP - 1 :]))


def a_step(counter: Mapping[int, float]) -> float | None:
    """What a counter grew by a step, from its value after some of the steps; None where fewer than two are counted."""
    known = sorted(step for step in counter if step >= WARM_UP)
    if len(known) < 2:
        return None
    return (counter[known[-1]] - counter[known[0]]) / (known[-1] - known[0])


def _used(pid: int) -> tuple[float, int] | None:
    """Seconds of processor and minor page faults of a process so far (Linux: proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(fields[7])
