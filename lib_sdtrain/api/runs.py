"""The runs on disk, told from their folders alone."""
from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lib_sdtrain.events import Event, Preview, Step

ENDS = ("finished", "stopped", "failed")
_TAIL_BYTES = 65536


@dataclass(frozen=True)
class RunEntry:
    """A run directory: how far it came, how it ended (empty: it was cut off), whether it can go on."""

    name: str
    path: Path
    step: int
    total: int
    end: str
    resumable: bool


def list_runs(folder: Path) -> list[RunEntry]:
    """Run directories in `folder`, the newest first (their names begin with the date)."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if (path / "config.yaml").is_file()]
    return [read_run(path) for path in sorted(found, key=lambda path: path.name, reverse=True)]


def read_run(path: Path) -> RunEntry:
    """One run directory; lines of its log that a crash cut off are passed over."""
    events = _last_events(path / "events.jsonl")
    steps = [event for event in events if event.get("type") == "step"]
    last = steps[-1] if steps else {}
    ends = [str(event.get("type")) for event in events if event.get("type") in (*ENDS, "step", "started")]
    end = ends[-1] if ends and ends[-1] in ENDS else ""
    states = path / "state"
    resumable = states.is_dir() and any(states.iterdir())
    return RunEntry(path.name, path, int(last.get("step", 0)), int(last.get("total", 0)), end, resumable)


def past_events(path: Path) -> Iterator[Event]:
    """The steps and previews that a run's log tells of, for a page that shows the run as a whole when it goes on."""
    log = path / "events.jsonl"
    if not log.is_file():
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = _event(line)
            kind = {"step": Step, "preview": Preview}.get(str(found.pop("type", ""))) if found else None
            names = {part.name for part in fields(kind)} if kind else set()
            if kind and set(found) <= names:
                yield kind(**{name: math.nan if value is None and name != "seconds_left" else value
                              for name, value in found.items()})  # fmt: skip


def _last_events(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return [event for event in map(_event, lines) if event]


def _event(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
