"""What the engine tells the world, and how the world asks it to stop.

Every engine entry point is a generator of these events; the tab, the API, the terminal and the run's
events.jsonl are all made from them. Standard library only.
"""
from __future__ import annotations

import json
import threading
import time as _time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from lib_sdtrain.errors import Cancelled

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Something that happened; `time` in seconds since the epoch."""

    time: float = field(default_factory=_time.time, kw_only=True)

    @property
    def type(self) -> str:
        """The name used in events.jsonl: the class name in lower case."""
        return self.__class__.__name__.lower()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, `type` first."""
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True)
class Started(Event):
    """A job began; `total` steps (or pictures, or tensors), of which `step` are already done (resumed)."""

    job: str = ""
    total: int = 0
    step: int = 0
    run_dir: str | None = None


@dataclass(frozen=True)
class Phase(Event):
    """Progress inside a named phase ("encoding pictures", 12 of 40, unit "pictures")."""

    name: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step was taken. `loss` is raw, `smoothed` its bias-corrected moving average."""

    step: int = 0
    total: int = 0
    samples: int = 0
    loss: float = 0.0
    smoothed: float = 0.0
    lr: float = 0.0
    seconds_left: float | None = None


@dataclass(frozen=True)
class Preview(Event):
    """A preview picture was written to `file` (relative to the run directory when there is one)."""

    step: int = 0
    file: str = ""
    index: int = 0
    infotext: str = ""


@dataclass(frozen=True)
class Validation(Event):
    """A validation loss at `step`."""

    step: int = 0
    loss: float = 0.0
    name: str = "validation"


@dataclass(frozen=True)
class Saved(Event):
    """A file is complete on disk under its final name. `kind`: checkpoint, state or picture."""

    file: str = ""
    kind: str = "checkpoint"
    step: int = 0
    sha256: str | None = None


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know that does not stop the job (a broken picture left out, say)."""

    text: str = ""
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(frozen=True)
class Finished(Event):
    """The job ended well; `result` is the command's JSON document."""

    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopped(Event):
    """The job ended at the user's wish; `saved` tells whether it can be resumed from `step`."""

    step: int = 0
    saved: bool = False
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed(Event):
    """The job broke; `problems` are lines for the user, `trace` is for the log."""

    problems: tuple[str, ...] = ()
    trace: str = ""


def event_of(line: str | bytes) -> dict[str, Any] | None:
    """The event of a line of events.jsonl; None when a crash cut it off or it is no event."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def result_of(work: Generator[Event, None, T], tell: Callable[[Event], object]) -> T:
    """Do a piece of work to its end: what it returns. Each of its events goes to `tell`."""
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            return end.value
        tell(event)


def sifted(work: Generator[Event, None, T], passes: Callable[[Event], bool]) -> Generator[Event, None, T]:
    """A piece of work of whose events only those go on that `passes` says yes to."""
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            return end.value
        if passes(event):
            yield event


class CancelToken:
    """Carries the user's wish to stop from any thread to the engine. Wishes only grow stronger."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._now = threading.Event()
        self._save = threading.Event()

    def save_and_go_on(self) -> None:
        """Ask for a checkpoint and a state at the next step, without stopping."""
        self._save.set()

    def stop_and_save(self) -> None:
        """Ask to save and stop at the next step."""
        self._stop.set()

    def stop_now(self) -> None:
        """Ask to stop at once; the last saved state stays."""
        self._now.set()
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """True once either stop was asked for."""
        return self._stop.is_set()

    @property
    def stopping_now(self) -> bool:
        """True once the hard stop was asked for."""
        return self._now.is_set()

    def take_save_request(self) -> bool:
        """True once per `save_and_go_on`."""
        asked = self._save.is_set()
        self._save.clear()
        return asked

    def check(self) -> None:
        """Raise `Cancelled` when the user asked to stop. For phases that have nothing of their own to save."""
        if self._stop.is_set():
            raise Cancelled
