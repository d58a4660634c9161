"""Live merges: the loaded model of a host changed in memory. The last wish wins, and only what changed is computed."""
from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib_sdtrain.errors import Cancelled, Problem, UserError
from lib_sdtrain.events import Phase
from lib_sdtrain.host.protocol import Host, LiveHost, LiveMerge
from lib_sdtrain.jobs import Busy, JobRunner

if TYPE_CHECKING:
    from torch import Tensor

    from lib_sdtrain.merge.session import MergeSession
    from lib_sdtrain.settings.merge import MergeSettings

Tell = Callable[[int, int], None]
JOB = "SD Train: live merge"
OFF, WAITING, WORKING, ON = "off", "waiting", "working", "on"
_HASH_LENGTH = 10

logger = logging.getLogger(__name__)


class SessionTensors:
    """A session's tensors under LDM/SGM names."""

    def __init__(self, session: MergeSession) -> None:
        self._session = session
        self._names = {file: key for key, file in session.inputs.a.file_keys.items()}
        self._steps = {self.name(key): key for key in session.plan.steps}

    def name(self, key: str) -> str:
        """The LDM/SGM name of a step."""
        return self._names.get(key, key)

    def keys(self) -> list[str]:
        """Every name whose tensor is not A's own, as stored."""
        return [name for name, key in self._steps.items() if not self._is_own(key)]

    def _is_own(self, key: str) -> bool:
        a, step = self._session.inputs.a, self._session.plan.steps[key]
        source = step.sources[0]
        own = step.copied and (source.path, source.key) == (str(a.path), key)
        return own and step.dtype == a.tensors.dtype(key)

    def tensor(self, name: str) -> Tensor:
        """The tensor, bit for bit what the merged file would hold."""
        return self._session.tensor(self._steps[name])


@contextmanager
def opened(settings: MergeSettings) -> Iterator[SessionTensors]:
    """The tensors of a merge."""
    from lib_sdtrain.merge.session import MergeSession

    with MergeSession(settings) as session:
        yield SessionTensors(session)


@dataclass(frozen=True)
class _Shown:
    """What was put into the model last: the merge, its closed session, its parents' hashes."""

    merge: LiveMerge
    session: MergeSession
    digests: Mapping[str, str]


@contextmanager
def _session(settings: MergeSettings, shown: _Shown | None) -> Iterator[tuple[MergeSession, list[str]]]:
    """The session opened, and which of its keys are other than those of what is shown."""
    from lib_sdtrain.merge.session import MergeSession

    if shown is None:
        with MergeSession(settings) as session:
            yield session, []
        return
    with ExitStack() as stack:
        stack.push(shown.session)
        yield shown.session, shown.session.update(settings)


class LiveMerging:
    """Live merges of a host that can show them (`available`)."""

    def __init__(self, host: Host, runner: JobRunner, settings: Callable[[Mapping[str, Any]], MergeSettings]) -> None:
        self.host, self._runner, self._settings = host, runner, settings
        self._lock = threading.Lock()
        # one thread for all of them: what a thread has freed the next one need not find again
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sdtrain-live")
        self._wish: Callable[[], None] | None = None
        self._work: Future[None] | None = None
        self._shown: _Shown | None = None
        self._form: dict[str, Any] = {}
        self._progress: tuple[str, int, int] = ("", 0, 0)
        self._problems: tuple[Problem, ...] = ()

    @property
    def available(self) -> bool:
        """Whether the host has a loaded model that can be changed."""
        return isinstance(self.host, LiveHost) and self.host.shows_live

    # wishes

    def show(self, form: Mapping[str, Any], checked: bool = False) -> None:
        """Have the loaded model show the merge of a form, soon. Raises `UserError` for mistakes and during a job.

        `checked`: whoever asks has looked for mistakes in the models and weights.
        """
        settings, kept = self._settings({**form, "name": ""}), dict(form)
        if not checked:
            with opened(settings):
                pass
        self._ask(lambda: self.show_now(settings, kept, self._tell_host))

    def revert(self) -> None:
        """Have the loaded model's own weights back, soon. Raises `Busy` during a job."""
        self._ask(self.revert_now)

    def _ask(self, wish: Callable[[], None]) -> None:
        if self._runner.busy:
            what = "a job has the machine; the loaded model is not changed meanwhile"
            raise Busy(what, where="live", fix="wait for its end, or stop it")
        with self._lock:
            self._wish = wish
            self._begin()

    def _begin(self) -> None:
        if self._work is None and self._wish is not None:
            self._work = self._pool.submit(self._fulfil)
            self._work.add_done_callback(self._ended)

    def _fulfil(self) -> None:
        with self.host.exclusive(JOB):
            with self._lock:
                wish, self._wish = self._wish, None
            if wish is not None:
                wish()

    def _ended(self, work: Future[None]) -> None:
        error = work.exception()
        self._problems = () if error is None or isinstance(error, Cancelled) else _told(error)
        error = None
        with self._lock:
            self._work, self._progress = None, ("", 0, 0)
            self._begin()

    def wait(self, timeout: float | None = None) -> bool:
        """Until every wish is fulfilled; False when that takes longer than `timeout` seconds."""
        done = threading.Event()

        def look() -> None:
            work = self._work
            if work is None:
                done.set()
            else:
                work.add_done_callback(lambda _: look())

        look()
        return done.wait(timeout)

    # what the wishes do, for whoever has the machine

    def show_now(self, settings: MergeSettings, form: Mapping[str, Any], tell: Tell | None = None) -> None:
        """Have the loaded model show a merge, for whoever has the machine. `tell(done, total)` hears of the way.

        Raises `UserError`; then, and where `tell` raises, the loaded model is its file's again.
        """
        shown, self._shown = self._shown, None
        if shown is not None and self.host.live() is not shown.merge:
            shown = None  # the WebUI has loaded weights since
        with _session(settings, shown) as (session, changed):
            digests = self._digests(session)
            tensors = SessionTensors(session)
            known = shown is not None and digests == shown.digests
            merge = described(session, digests)
            self._progress = (WORKING, 0, 1)
            keys = [tensors.name(key) for key in changed] if known else None
            self.host.apply_live(merge, tensors, keys, tell or _untold)
        self._shown = _Shown(merge, session, digests)
        self._form = dict(form)

    def revert_now(self) -> None:
        """The loaded model's own weights, for whoever has the machine."""
        self._shown = None
        self.host.revert_live()

    def _digests(self, session: MergeSession) -> dict[str, str]:
        from lib_sdtrain.model.hashes import model_digest, user_cache

        return {role: model_digest(path, user_cache()) for role, path in session.inputs.paths().items()}

    def _tell_host(self, done: int, total: int) -> None:
        self._progress = (WORKING, done, total)
        if self.host.report(Phase(name="merging into the loaded model", done=done, total=total)):
            raise Cancelled

    # what is on

    @property
    def form(self) -> dict[str, Any]:
        """The form of the merge that the loaded model shows; empty when it shows none."""
        return dict(self._form) if self._shown and self.host.live() is self._shown.merge else {}

    def state(self) -> dict[str, Any]:
        """`state` (off, waiting, working, on), `name`, `hash` and `checkpoint` of what is on, `done` of `total`,
        `problems` of the last wish.
        """
        merge = self.host.live() if self.available else None
        state = ON if merge else OFF
        if self._work is not None:
            state = self._progress[0] or WAITING
        return {
            "state": state, "on": merge is not None, "name": merge.name if merge else "",
            "hash": merge.digest[:_HASH_LENGTH] if merge else "", "done": self._progress[1],
            "checkpoint": merge.checkpoint.name if merge else "", "total": self._progress[2],
            "problems": [vars(problem) for problem in self._problems],
        }  # fmt: skip


def described(session: MergeSession, digests: Mapping[str, str]) -> LiveMerge:
    """What a live merge is called: its digest is that of its recipe, which names the parents by their hashes."""
    from lib_sdtrain.merge.recipe import recipe_metadata
    from lib_sdtrain.model.metadata import MODELS, OURS

    ours = json.loads(recipe_metadata(session, digests, {})[OURS])
    digest = hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()
    paths = session.inputs.paths()
    ours["parents"] = {role: found[:_HASH_LENGTH] for role, found in digests.items()}
    ours[MODELS] = {digests[role][:_HASH_LENGTH]: {"name": path.name} for role, path in paths.items()}
    recipe = json.dumps({name: value for name, value in ours.items() if value}, ensure_ascii=False)
    path, settings = session.inputs.a.path, session.settings
    return LiveMerge(path, f"{path.stem} (merged, not saved)", digest, recipe, lambda: opened(settings))


def _untold(done: int, total: int) -> None:
    """Nobody listens."""


def _told(error: BaseException) -> tuple[Problem, ...]:
    if isinstance(error, UserError):
        return tuple(error.problems)
    logger.error("a live merge failed", exc_info=error)
    return (Problem(f"{type(error).__name__}: {error}", "live", "the loaded model is its file's again"),)
