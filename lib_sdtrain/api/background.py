"""Work that goes on behind the page: how far it is, what it has to say, how it ended, and a way to stop it."""
from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lib_sdtrain.errors import Cancelled, Problem, Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Notice, Phase

WORKING, DONE, STOPPED, FAILED = "working", "done", "stopped", "failed"


@dataclass(eq=False, kw_only=True)
class Background:
    """One piece of work. `SUBJECT` and `where` say what ended, and where, when it does so in an unforeseen way."""

    MOST_NOTICES: ClassVar[int] = 20
    SUBJECT: ClassVar[str] = "it"

    where: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    token: CancelToken = field(default_factory=CancelToken)
    state: str = WORKING
    phase: Phase | None = None
    began: float = field(default_factory=time.monotonic)
    notices: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def begin(self, work: Callable[[], None], name: str) -> None:
        """Do the work in a thread of this name."""
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        pool.submit(work).add_done_callback(self._settle)
        pool.shutdown(wait=False)

    def tell(self, event: Event) -> None:
        """Take note of how it goes."""
        if isinstance(event, Phase):
            self.phase = event
        elif isinstance(event, Notice) and len(self.notices) < self.MOST_NOTICES:
            self.notices.append(str(event))

    def stop(self) -> bool:
        """Stop it; whether there was something to stop."""
        if self.done.is_set():
            return False
        self.token.stop_now()
        return True

    def as_dict(self) -> dict[str, Any]:
        """For the page: where it is."""
        phase = self.phase and {
            "name": self.phase.name, "done": self.phase.done, "total": self.phase.total, "unit": self.phase.unit,
        }
        return {
            "id": self.id, "state": self.state, "phase": phase, "seconds": round(time.monotonic() - self.began, 1),
            "problems": [vars(problem) for problem in self.problems], "notices": list(self.notices),
        }  # fmt: skip

    def _settle(self, ended: Future[None]) -> None:
        """Turn the way it ended into its state."""
        error = CancelledError() if ended.cancelled() else ended.exception()
        if error is None:
            self.state = DONE
        elif isinstance(error, (Cancelled, CancelledError)):
            self.state = STOPPED
        else:
            problems = Problems()
            if isinstance(error, UserError):
                problems.absorb(error)
            else:
                what = f"{self.SUBJECT} ended unexpectedly: {type(error).__name__}: {error}"
                problems.add(what, where=self.where)
            self.problems, self.state = problems.found, FAILED
        self.done.set()
