"""One running job: its events, its cancel token, and a view of it for whoever asks."""
from __future__ import annotations

import logging
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import Cancelled, JobFailed, UserError
from lib_sdtrain.events import CancelToken, Event, Failed, Finished, Phase, Saved, Started, Step, Stopped
from lib_sdtrain.host.protocol import Host

Work = Callable[[CancelToken], Iterator[Event]]
Listener = Callable[["Job"], None]
LOG_CAPACITY = 4000
WAITING, RUNNING, FINISHED, STOPPED, FAILED = "waiting", "running", "finished", "stopped", "failed"
STOPS = ("save", "go_on", "now")

logger = logging.getLogger(__name__)


class Busy(UserError):  # noqa: N818 - reads as what it is
    """The machine is at work for another job."""


class EventLog:
    """The events of a job in bounded memory, numbered so that a page can ask for what it has not seen.

    A phase's progress replaces its predecessor. When the log is full, only every second, then fourth ... step is
    kept besides the newest, so a page that opens late still gets the whole curve, only coarser.
    """

    def __init__(self, capacity: int = LOG_CAPACITY) -> None:
        self._capacity = capacity
        self._items: list[tuple[int, Event]] = []
        self._last = 0
        self._stride = 1
        self._lock = threading.Lock()

    def append(self, event: Event) -> None:
        """Add an event under the next number."""
        with self._lock:
            self._last += 1
            if self._items and self._replaces(self._items[-1][1], event):
                self._items.pop()
            self._items.append((self._last, event))
            if len(self._items) > self._capacity:
                self._thin()

    def since(self, number: int) -> list[tuple[int, Event]]:
        """Events with a greater number, oldest first."""
        with self._lock:
            return [item for item in self._items if item[0] > number]

    def _replaces(self, last: Event, event: Event) -> bool:
        if isinstance(last, Phase) and isinstance(event, Phase):
            return last.name == event.name
        return isinstance(last, Step) and isinstance(event, Step) and last.step % self._stride != 0

    def _thin(self) -> None:
        self._stride *= 2
        newest = self._items[-1]
        kept = [item for item in self._items if item is newest or not self._thinned_out(item[1])]
        self._items = kept[-self._capacity :]

    def _thinned_out(self, event: Event) -> bool:
        return isinstance(event, Step) and event.step % self._stride != 0


@dataclass(eq=False)
class Job:
    """A piece of work and what became of it. `asked` is the last stop that was asked for."""

    kind: str
    label: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    token: CancelToken = field(default_factory=CancelToken)
    log: EventLog = field(default_factory=EventLog)
    state: str = WAITING
    asked: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        """Waiting or running."""
        return self.state in (WAITING, RUNNING)

    @property
    def run_dir(self) -> str | None:
        """The run directory that the job announced."""
        started = [event for _, event in self.log.since(0) if isinstance(event, Started)]
        return started[-1].run_dir if started else None

    def as_dict(self, after: int = 0) -> dict[str, Any]:
        """JSON-ready view with the events numbered above `after`."""
        state, items = self.state, self.log.since(after)
        return {
            "id": self.id, "kind": self.kind, "label": self.label, "state": state, "asked": self.asked,
            "last": items[-1][0] if items else after, "events": [event.as_dict() for _, event in items],
        }


class JobRunner:
    """Runs one job at a time on a thread of its own, with the host's machine to itself."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._listeners: list[Listener] = []

    @property
    def job(self) -> Job | None:
        """The running job, or the last one."""
        return self._job

    @property
    def busy(self) -> bool:
        """Whether a job is waiting for the machine or has it."""
        return self._job is not None and self._job.active

    def listen(self, listener: Listener) -> None:
        """Have `listener(job)` called when a job has announced its run directory, and when it has ended."""
        self._listeners.append(listener)

    def start(self, kind: str, label: str, work: Work) -> Job:
        """Start at once and return. Raises `Busy` when a job is running: two starts cannot meet."""
        with self._lock:
            if self._job and self._job.active:
                fix = "wait for its end, stop it, or add this to the queue"
                raise Busy(f"{self._job.label} is still running", where=kind, fix=fix)
            job = self._job = Job(kind, label)
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sdtrain-{kind}")
        future = pool.submit(self._run, job, work)
        future.add_done_callback(lambda ended: self._ended(job, ended))
        pool.shutdown(wait=False)
        return job

    def _ended(self, job: Job, ended: Future[None]) -> None:
        _settle(job, ended)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        for listener in self._listeners:
            listener(job)

    def stop(self, how: str, job_id: str | None = None) -> bool:
        """Pass on a wish: `save` (and stop), `go_on` (save, go on), `now`. False when there is nothing to stop.

        With `job_id` only that job is meant, so that an old page cannot stop a newer job.
        """
        if how not in STOPS:
            raise UserError(f"{how!r} is no way to stop", where="stop", fix=f"one of {', '.join(STOPS)}")
        job = self._job
        if not job or not job.active or (job_id and job_id != job.id):
            return False
        wish = {"save": job.token.stop_and_save, "go_on": job.token.save_and_go_on, "now": job.token.stop_now}
        wish[how]()
        job.asked = how
        return True

    def view(self, job_id: str = "", after: int = 0) -> dict[str, Any] | None:
        """What a page needs that has seen `job_id` up to event `after`; None when nothing has run yet."""
        job = self._job
        if not job:
            return None
        return job.as_dict(after if job_id == job.id else 0)

    def _run(self, job: Job, work: Work) -> None:
        with self._host.exclusive(f"SD Train: {job.label}"):
            job.token.check()
            job.state = RUNNING
            with self._host.step_aside():
                for event in work(job.token):
                    if isinstance(event, Saved) and event.kind == "checkpoint":
                        self._host.adopt(Path(event.file))
                    job.log.append(event)
                    if isinstance(event, Started):
                        self._tell(job)
                    if self._host.report(event) and not job.token.stopping:
                        job.token.stop_and_save()
                        job.asked = "save"


def _settle(job: Job, ended: Future[None]) -> None:
    """Turn the way a job's thread ended into its last event and state; nothing may keep its tensors alive."""
    error = ended.exception()
    if error is not None and not (isinstance(error, Cancelled) and _last_is(job, Stopped)):
        job.log.append(_last_event(error))
    error = None
    if _last_is(job, Failed):
        job.state = FAILED
    else:
        job.state = STOPPED if _last_is(job, Stopped) else FINISHED
    job.done.set()


def _last_is(job: Job, kind: type[Event]) -> bool:
    ends = [event for _, event in job.log.since(0) if isinstance(event, (Failed, Finished, Stopped))]
    return bool(ends) and isinstance(ends[-1], kind)


def _last_event(error: BaseException) -> Event:
    if isinstance(error, Cancelled):
        return Stopped(saved=False)
    if isinstance(error, UserError):
        return Failed(problems=tuple(map(str, error.problems)))
    if isinstance(error, JobFailed):
        return Failed(problems=(str(error),))
    if isinstance(error, ModuleNotFoundError):
        fix = "restart the WebUI while it can reach the internet, or run python install.py"
        return Failed(problems=(f"the package {error.name} is not installed; {fix}",))
    trace = "".join(traceback.format_exception(error))
    logger.error("a job failed\n%s", trace)
    return Failed(problems=(f"{type(error).__name__}: {error}",), trace=trace)
