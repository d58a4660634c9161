"""Several runs and merges, one after the other. The list is kept in a file, so that it outlives the program."""
from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from lib_sdtrain.durable import write_atomically
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Failed
from lib_sdtrain.jobs import FAILED, RUNNING, WAITING, Busy, Job, JobRunner
from lib_sdtrain.textfiles import parse_json

BY_USER, BY_RESTART = "by you", "by a restart"
MOST, ENDED_KEPT = 200, 30

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is known of a task before its turn: `request` is frozen, so that what is loaded later does not matter.

    `about` are facts in a few words, `seconds` the expected duration, `claims` names of files that it will write.
    """

    request: Mapping[str, Any]
    label: str
    about: str = ""
    seconds: float | None = None
    claims: tuple[str, ...] = ()


class Kind(Protocol):
    """What can stand in the queue."""

    def order(self, request: Mapping[str, Any]) -> Order:
        """What the request asks for. Raises `UserError` with every mistake."""

    def start(self, request: Mapping[str, Any]) -> Job:
        """Start it. Raises `UserError` when it has become impossible, `Busy` when a job is running."""

    def after_restart(self, request: Mapping[str, Any], run: str) -> tuple[str, Mapping[str, Any]]:
        """The kind and the request that go on with what was cut off, `run` being its run directory's name."""


@dataclass(frozen=True)
class Task:
    """A place in the queue. Times are seconds since the epoch."""

    kind: str
    request: Mapping[str, Any]
    label: str
    about: str = ""
    seconds: float | None = None
    claims: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    state: str = WAITING
    added: float = field(default_factory=time.time)
    began: float = 0.0
    ended: float = 0.0
    job: str = ""
    run: str = ""
    problems: tuple[str, ...] = ()

    def as_dict(self, with_request: bool = False) -> dict[str, Any]:
        """JSON-ready view; the request names files of this machine."""
        found = asdict(self)
        return found if with_request else {name: value for name, value in found.items() if name != "request"}


class Queue:
    """Tasks in their order. The next one begins when the machine is free and nobody holds the queue."""

    def __init__(self, runner: JobRunner, file: Path, kinds: Mapping[str, Kind]) -> None:
        self._runner, self._file, self._kinds = runner, file, kinds
        # a job that is over at once tells so in the very thread that has started it
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._waiting: list[Task] = []
        self._ended: list[Task] = []
        self._current: Task | None = None
        self._closing = False
        self.held, self.notice = "", ""
        self._read()
        runner.listen(self._changed)

    # what people ask for

    def add(self, kind: str, request: Mapping[str, Any], first: bool = False) -> Task:
        """Put a task at the end (or the beginning); it starts at once when nothing is in its way.

        Raises `UserError` with every mistake of the request, and when another task will write the same file.
        """
        if kind not in self._kinds:
            raise UserError(f"{kind!r} cannot be queued", where="kind", fix=f"one of {', '.join(self._kinds)}")
        order = self._kinds[kind].order(request)
        task = Task(kind, order.request, order.label, order.about, order.seconds, order.claims)
        with self._lock:
            if len(self._waiting) >= MOST:
                raise UserError(f"{MOST} tasks are waiting already", where="queue", fix="remove some of them")
            for other in self._open():
                same = set(other.claims) & set(task.claims)
                if same:
                    what = f"{other.label} in the queue will write {min(same)} too"
                    where = "name" if kind == "merge" else "save.name"
                    raise UserError(what, where=where, fix="choose another name")
            self._waiting.insert(0 if first else len(self._waiting), task)
            self._write()
        self.advance()
        return task

    def remove(self, task_id: str) -> Task:
        """Take a waiting task out, or forget one that has ended. Raises `UserError` when there is none."""
        with self._lock:
            task = self.task(task_id)
            if task is self._current:
                raise UserError(f"{task.label} is running", where="queue", fix="stop it instead")
            self._waiting = [other for other in self._waiting if other.id != task_id]
            self._ended = [other for other in self._ended if other.id != task_id]
            self._write()
            return task

    def move(self, task_id: str, by: int) -> None:
        """Move a waiting task by so many places (negative: sooner). Raises `UserError` when it does not wait."""
        with self._lock:
            at = next((index for index, task in enumerate(self._waiting) if task.id == task_id), None)
            if at is None:
                raise UserError("it is not waiting", where="queue", fix="choose a waiting task")
            to = max(0, min(len(self._waiting) - 1, at + by))
            self._waiting.insert(to, self._waiting.pop(at))
            self._write()

    def hold(self) -> None:
        """Start nothing more; what runs goes on."""
        with self._lock:
            self.held = BY_USER
            self._write()

    def go_on(self) -> None:
        """Start the next task when the machine is free."""
        with self._lock:
            self.held = self.notice = ""
            self._write()
        self.advance()

    def clear_ended(self) -> None:
        """Forget the tasks that have ended; their runs and files stay."""
        with self._lock:
            self._ended, self.notice = [], ""
            self._write()

    def close(self) -> None:
        """The program ends: nothing more starts, and what runs will be taken up again after the restart."""
        with self._lock:
            self._closing = True

    # what people see

    def task(self, task_id: str) -> Task:
        """A task by its id. Raises `UserError` when there is none."""
        with self._lock:
            found = next((task for task in (*self._open(), *self._ended) if task.id == task_id), None)
        if found is None:
            raise UserError(f"there is no task {task_id!r}", where="queue", fix="look at the queue again")
        return found

    def claims(self) -> set[str]:
        """Names of files that the tasks to come will write."""
        with self._lock:
            return {name for task in self._open() for name in task.claims}

    def as_dict(self, with_requests: bool = False) -> dict[str, Any]:
        """JSON-ready: `held` (empty, or by whom), `notice`, `running` (or None), `waiting`, `ended` (newest first)."""
        with self._lock:
            view = lambda tasks: [task.as_dict(with_requests) for task in tasks]  # noqa: E731
            running = self._current.as_dict(with_requests) if self._current else None
            return {"held": self.held, "notice": self.notice, "running": running, "waiting": view(self._waiting),
                    "ended": view(self._ended)}  # fmt: skip

    def brief(self) -> dict[str, Any]:
        """What every page shows: how many wait, the next one's label, by whom it is held."""
        with self._lock:
            label = self._waiting[0].label if self._waiting else ""
            return {"waiting": len(self._waiting), "next": label, "held": self.held}

    def _open(self) -> Iterable[Task]:
        return (*((self._current,) if self._current else ()), *self._waiting)

    # going on

    def advance(self) -> None:
        """Start the next task if the machine is free; one that has become impossible ends as failed."""
        with self._turn:
            while True:
                with self._lock:
                    if self.held or self._closing or self._current or self._runner.busy or not self._waiting:
                        return
                    task = self._current = replace(self._waiting.pop(0), state=RUNNING, began=time.time())
                    self._write()
                self._start(task)

    def _start(self, task: Task) -> None:
        try:
            job = self._kinds[task.kind].start(task.request)
        except Busy:
            with self._lock:  # somebody was quicker; its end calls us again
                self._waiting.insert(0, replace(task, state=WAITING, began=0.0))
                self._current = None
                self._write()
            return
        except UserError as error:
            self._end(task, FAILED, tuple(map(str, error.problems)))
            return
        except BaseException as error:
            self._end(task, FAILED, (f"{type(error).__name__}: {error}",))
            raise
        with self._lock:
            self._current = replace(task, job=job.id)
            self._write()
        self._follow(job)  # what it has told before its id was known here

    def _changed(self, job: Job) -> None:
        self._follow(job)
        if not job.active:
            self.advance()

    def _follow(self, job: Job) -> None:
        with self._lock:
            task = self._current
            if task is None or task.job != job.id:
                return
            task = replace(task, run=Path(job.run_dir).name if job.run_dir else "")
            if job.active:
                self._current = task
                self._write()
            elif self._closing:
                self._current = None
                self._waiting.insert(0, self._taken_up(task))
                self._write()
            else:
                self._end(task, job.state, _problems(job))

    def _end(self, task: Task, state: str, problems: tuple[str, ...]) -> None:
        with self._lock:
            done = replace(task, state=state, problems=problems, ended=time.time(), claims=())
            self._current, self._ended = None, [done, *self._ended][:ENDED_KEPT]
            self._write()

    def _taken_up(self, task: Task) -> Task:
        """The task that goes on with one that was cut off."""
        kind, request = self._kinds[task.kind].after_restart(task.request, task.run)
        about = "goes on where it was cut off" if kind != task.kind else task.about
        return replace(task, kind=kind, request=request, state=WAITING, about=about, began=0.0, job="", run="")

    # on disk

    def _write(self) -> None:
        held = self.held if self.held == BY_USER else ""
        current = asdict(self._current) if self._current else None
        data = {"held": held, "current": current, "waiting": [asdict(task) for task in self._waiting],
                "ended": [asdict(task) for task in self._ended]}  # fmt: skip
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(data, ensure_ascii=False, indent=1).encode())
        except OSError as error:
            self.notice = f"the queue cannot be kept in {self._file.name}: {error.strerror}; a restart will forget it"
            logger.warning("%s", self.notice)

    def _read(self) -> None:
        """Take up what an earlier program has left. What was waiting or cut off is held until somebody looks."""
        try:
            data = parse_json(self._file.read_text("utf-8"))
            self._ended = [_task(entry) for entry in data["ended"]]
            self._waiting = [_task(entry) for entry in data["waiting"]]
            if data["current"]:
                self._waiting.insert(0, self._taken_up(_task(data["current"])))
            self.held = BY_RESTART if self._waiting else str(data["held"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._waiting, self._ended = [], []
            aside = self._file.with_name(f"{self._file.name}.damaged")
            self.notice = f"the queue of before could not be read ({error}); it was set aside as {aside.name}"
            logger.warning("%s", self.notice)
            with contextlib.suppress(OSError):  # what cannot be moved away cannot be written either, which is told then
                self._file.replace(aside)


def _task(entry: Mapping[str, Any]) -> Task:
    known = {part.name for part in fields(Task)}
    values = {name: tuple(value) if isinstance(value, list) else value
              for name, value in entry.items() if name in known}  # fmt: skip
    if not isinstance(values["request"], Mapping):
        message = "a task without a request"
        raise TypeError(message)
    return Task(**values)


def _problems(job: Job) -> tuple[str, ...]:
    failed = [event for _, event in job.log.since(0) if isinstance(event, Failed)]
    return failed[-1].problems if failed else ()
