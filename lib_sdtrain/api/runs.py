"""The runs on disk, told from their folders alone."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lib_sdtrain.api.run_log import ENDS, head, number, tail, whole
from lib_sdtrain.events import Event, Preview, Step, Validation, event_of

_DATED = re.compile(r"\d{8}-\d{6}-(?P<name>.+)")


@dataclass(frozen=True)
class RunEntry:
    """A run directory: how far it came, how it ended (empty: it was cut off), whether it can go on.

    `began` and `last` are seconds since the epoch of its first and last event, `loss` the last smoothed one.
    """

    name: str
    path: Path
    step: int
    total: int
    end: str
    resumable: bool
    began: float | None = None
    last: float | None = None
    loss: float | None = None

    @property
    def label(self) -> str:
        """The name without the date."""
        dated = _DATED.fullmatch(self.name)
        return dated["name"] if dated else self.name

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the path."""
        return {"label": self.label, **{name: value for name, value in vars(self).items() if name != "path"}}


def list_runs(folder: Path) -> list[RunEntry]:
    """Run directories in `folder`, the newest first (their names begin with the date)."""
    if not folder.is_dir():
        return []
    found = filter(is_run, folder.iterdir())
    return [read_run(path) for path in sorted(found, key=lambda path: path.name, reverse=True)]


def is_run(path: Path) -> bool:
    """Whether a path is a run directory."""
    return not path.is_symlink() and (path / "config.yaml").is_file()


def find_run(folder: Path, name: str) -> RunEntry | None:
    """A run directory in `folder` by its name, None for anything else, so that no path can be smuggled in."""
    there = folder.iterdir() if folder.is_dir() else ()
    path = next((path for path in there if path.name == name and is_run(path)), None)
    return read_run(path) if path else None


def read_run(path: Path) -> RunEntry:
    """One run directory; lines of its log that a crash cut off are passed over."""
    log = path / "events.jsonl"
    events = tail(log)
    steps = [event for event in events if event.get("type") == "step"]
    last = steps[-1] if steps else {}
    ends = [str(event.get("type")) for event in events if event.get("type") in (*ENDS, "step", "started")]
    end = ends[-1] if ends and ends[-1] in ENDS else ""
    stated = any(any(folder.iterdir()) for folder in state_folders(path))
    resumable = stated or (end == "stopped" and _in_preparation(events))
    times = [time for time in (number(event.get("time")) for event in events) if time is not None]
    return RunEntry(path.name, path, whole(last.get("step")), whole(last.get("total")), end, resumable,
                    number(head(log).get("time")), times[-1] if times else None, number(last.get("smoothed")))


def state_folders(run: Path) -> list[Path]:
    """Where a run keeps its states: one folder, or one in the directory of each stage."""
    found = (run / "state", *(stage / "state" for stage in run.glob("stage-*") if not stage.is_symlink()))
    return [folder for folder in found if folder.is_dir()]


def _in_preparation(events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run was stopped before its first step, with all that was made until then kept: it can begin."""
    last = next((event for event in reversed(events) if event.get("type") == "stopped"), {})
    return last.get("saved") is True and not whole(last.get("step"))


_SHOWN = {"step": Step, "preview": Preview, "validation": Validation}


def past_events(path: Path) -> Iterator[Event]:
    """The steps, previews and losses of validation of a run's log, for a page that shows the whole of it as it goes on.

    Steps and losses that a crash has lost, after which the run went back to an earlier step, are not among them.
    """
    log = path / "events.jsonl"
    if not log.is_file():
        return
    # read twice: a million steps are not to be held
    starts = [whole(found.get("step")) for found in _told(log) if found.get("type") == "started"]
    for found in _told(log):
        told = str(found.pop("type", ""))
        if told == "started":
            starts.pop(0)
        kind = _SHOWN.get(told)
        lost = kind is not Preview and whole(found.get("step")) > min(starts, default=math.inf)
        if kind and not lost and set(found) <= {part.name for part in fields(kind)}:
            yield kind(**{name: math.nan if value is None and name != "seconds_left" else value
                          for name, value in found.items()})  # fmt: skip


def _told(log: Path) -> Iterator[dict[str, Any]]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        yield from filter(None, map(event_of, lines))
