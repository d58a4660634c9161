"""A run's events.jsonl, read as it grows: curve, previews, saved files, ends. Senseless lines are passed over."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.events import Validation, event_of

ENDS = ("finished", "stopped", "failed")
MOST_POINTS, MOST_NOTICES = 2000, 50

Point = tuple[int, float | None, float | None]


def number(value: Any) -> float | None:
    """A finite number, None for anything else."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None


def whole(value: Any) -> int:
    """A number as a whole one, 0 for anything else."""
    return int(number(value) or 0)


@dataclass
class RunLog:
    """What a log has told so far. `points` are step, loss and smoothed loss; `previews` step -> index -> entry.

    `validations` are the losses of validation by the name of their series: step and loss, None for what is no number.
    """

    file: Path
    points: list[Point] = field(default_factory=list)
    validations: dict[str, list[tuple[int, float | None]]] = field(default_factory=dict)
    previews: dict[int, dict[int, dict[str, str]]] = field(default_factory=dict)
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    step: int = 0
    total: int = 0
    loss: float | None = None
    rate: float | None = None
    end: str = ""
    began: float | None = None
    last: float | None = None
    seconds: float = 0.0
    _offset: int = 0
    _stride: int = 1

    def read(self) -> RunLog:
        """Take in the lines that were added since; a file that became shorter is read anew. Returns itself."""
        size = self.file.stat().st_size if self.file.is_file() else 0
        if size < self._offset:
            self.__init__(self.file)  # type: ignore[misc]
        if size == self._offset:
            return self
        with self.file.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._offset += len(line)
                event = event_of(line)
                if event:
                    self._take(event)
        return self

    def _take(self, event: Mapping[str, Any]) -> None:
        time, kind = number(event.get("time")), event.get("type")
        if time is not None:
            self.began = time if self.began is None else self.began
            if self.last is not None and kind != "started":
                self.seconds += max(0.0, time - self.last)
            self.last = time
        take = _TAKERS.get(str(kind))
        if take:
            take(self, event)

    def _started(self, event: Mapping[str, Any]) -> None:
        self.end, self.problems = "", []
        self.total = whole(event.get("total"))
        first = whole(event.get("step"))
        self.points = [point for point in self.points if point[0] <= first]  # a crash may have lost the last ones
        for series in self.validations.values():
            series[:] = [point for point in series if point[0] <= first]
        self.step = first

    def _step(self, event: Mapping[str, Any]) -> None:
        self.step, self.total = whole(event.get("step")), whole(event.get("total"))
        self.loss, self.rate = number(event.get("smoothed")), number(event.get("lr"))
        if self.points and self.points[-1][0] % self._stride:
            self.points.pop()  # the newest is always there, of the others every second, fourth ...
        self.points.append((self.step, number(event.get("loss")), self.loss))
        if len(self.points) > MOST_POINTS:
            self._stride *= 2
            newest = self.points[-1]
            self.points = [point for point in self.points if point[0] % self._stride == 0 or point is newest]

    def _preview(self, event: Mapping[str, Any]) -> None:
        entry = {"file": str(event.get("file", "")), "infotext": str(event.get("infotext", ""))}
        self.previews.setdefault(whole(event.get("step")), {})[whole(event.get("index"))] = entry

    def _validation(self, event: Mapping[str, Any]) -> None:
        series = self.validations.setdefault(str(event.get("name", Validation.name)), [])
        series.append((whole(event.get("step")), number(event.get("loss"))))

    def _saved(self, event: Mapping[str, Any]) -> None:
        file, kind = str(event.get("file", "")), str(event.get("kind", ""))
        if file and kind not in ("state", "picture"):
            self.saved[file] = {"step": whole(event.get("step")), "kind": kind,
                                "sha256": str(event.get("sha256") or "")}  # fmt: skip

    def _notice(self, event: Mapping[str, Any]) -> None:
        text = ": ".join(filter(None, (str(event.get("where", "")), str(event.get("text", "")))))
        self.notices = [*[old for old in self.notices if old != text], text][-MOST_NOTICES:]

    def _ended(self, event: Mapping[str, Any]) -> None:
        self.end = str(event["type"])
        problems = event.get("problems")
        self.problems = [str(problem) for problem in problems] if isinstance(problems, list) else []


_TAKERS = {
    "started": RunLog._started, "step": RunLog._step, "preview": RunLog._preview, "validation": RunLog._validation,
    "saved": RunLog._saved, "notice": RunLog._notice, **dict.fromkeys(ENDS, RunLog._ended),
}  # fmt: skip


def tail(file: Path, size: int = 65536) -> list[dict[str, Any]]:
    """The last events of a log, for lists of many runs."""
    if not file.is_file():
        return []
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - size))
        return [event for event in map(event_of, log.read().splitlines()) if event]


def head(file: Path, size: int = 4096) -> dict[str, Any]:
    """The first event of a log; empty when there is none."""
    if not file.is_file():
        return {}
    with file.open("rb") as log:
        lines = log.read(size).splitlines()
    return (event_of(lines[0]) if lines else None) or {}
