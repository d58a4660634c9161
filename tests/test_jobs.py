"""One job at a time, whatever happens: its events, its end, its machine given back."""
from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.events import CancelToken, Event, Failed, Finished, Phase, Saved, Started, Step, Stopped
from lib_sdtrain.host.protocol import Host
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.jobs import EventLog, JobRunner

WAIT = 10


@dataclass
class WatchedHost:
    """A host that writes down what is asked of it."""

    interrupt_at: int = 0
    calls: list[str] = field(default_factory=list)
    machine: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def exclusive(self, job: str) -> Iterator[None]:
        with self.machine:
            self.calls.append(f"lock {job}")
            try:
                yield
            finally:
                self.calls.append("unlock")

    @contextmanager
    def step_aside(self) -> Iterator[None]:
        self.calls.append("aside")
        try:
            yield
        finally:
            self.calls.append("back")

    def report(self, event: Event) -> bool:
        return isinstance(event, Step) and event.step == self.interrupt_at

    def adopt(self, checkpoint: Path) -> None:
        self.calls.append(f"adopt {checkpoint.name}")


def counting(total: int, gate: threading.Event | None = None):
    def work(token: CancelToken) -> Iterator[Event]:
        yield Started(job="train", total=total)
        for step in range(1, total + 1):
            if gate and step == 2:
                gate.wait(WAIT)
            yield Step(step=step, total=total, loss=1 / step)
            if token.stopping:
                yield Stopped(step=step, saved=not token.stopping_now)
                return
        yield Finished(result={"steps": total})

    return work


def finish(runner: JobRunner) -> dict:
    assert runner.job
    assert runner.job.done.wait(WAIT)
    return runner.view()


def test_a_job_ends_finished_with_all_its_events_in_order():
    runner = JobRunner(WatchedHost())
    runner.start("train", "dog", counting(3))
    view = finish(runner)
    assert view["state"] == "finished"
    assert [event["type"] for event in view["events"]] == ["started", "step", "step", "step", "finished"]


def test_the_machine_is_held_and_the_model_aside_only_while_working():
    host = WatchedHost()
    runner = JobRunner(host)
    runner.start("train", "dog", counting(1))
    finish(runner)
    assert host.calls == ["lock SD Train: dog", "aside", "back", "unlock"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), JobFailed("the loss is not a number"), UserError("bad", "x")])
@pytest.mark.fault("the reason; the WebUI draws as before")
def test_a_crash_gives_the_machine_and_the_model_back_and_says_what_happened(error):
    def work(token: CancelToken) -> Iterator[Event]:
        yield Started(job="train", total=5)
        raise error

    host = WatchedHost()
    runner = JobRunner(host)
    runner.start("train", "dog", work)
    view = finish(runner)
    assert view["state"] == "failed"
    assert str(error).splitlines()[0] in view["events"][-1]["problems"][0]
    assert host.calls[-2:] == ["back", "unlock"]


def test_after_a_crash_nothing_of_the_job_stays_in_memory():
    class Tensor:
        pass

    seen = []

    def work(token: CancelToken) -> Iterator[Event]:
        big = Tensor()
        seen.append(weakref.ref(big))
        yield Started()
        raise RuntimeError("boom")

    runner = JobRunner(WatchedHost())
    runner.start("train", "dog", work)
    finish(runner)
    del work
    gc.collect()
    assert seen[0]() is None


@pytest.mark.fault("one run; the second start says that one is on")
def test_two_starts_at_once_leave_one_job():
    gate, host = threading.Event(), WatchedHost()
    runner = JobRunner(host)
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def press() -> None:
        barrier.wait()
        try:
            outcomes.append(runner.start("train", "dog", counting(3, gate)).id)
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.set()
    finish(runner)
    refused = [outcome for outcome in outcomes if "still running" in outcome]
    assert len(refused) == 7
    assert host.calls.count("aside") == 1


def test_a_job_waits_for_the_machine_and_can_be_stopped_while_it_waits():
    host = WatchedHost()
    runner = JobRunner(host)
    with host.machine:
        job = runner.start("train", "dog", counting(3))
        assert job.state == "waiting"
        assert runner.stop("now")
    view = finish(runner)
    assert view["state"] == "stopped"
    assert "aside" not in host.calls


@pytest.mark.parametrize(("how", "saved"), [("save", True), ("now", False)])
def test_stopping_ends_with_what_was_asked(how, saved):
    gate = threading.Event()
    runner = JobRunner(WatchedHost())
    runner.start("train", "dog", counting(50, gate))
    runner.stop(how)
    assert runner.view()["asked"] == how
    gate.set()
    view = finish(runner)
    assert view["state"] == "stopped"
    assert view["events"][-1]["saved"] is saved


def test_an_old_page_cannot_stop_a_newer_job():
    gate = threading.Event()
    runner = JobRunner(WatchedHost())
    old = runner.start("train", "old", counting(1))
    finish(runner)
    runner.start("train", "new", counting(3, gate))
    assert not runner.stop("now", old.id)
    gate.set()
    assert finish(runner)["state"] == "finished"


def test_the_hosts_own_interrupt_saves_and_stops():
    runner = JobRunner(WatchedHost(interrupt_at=2))
    runner.start("train", "dog", counting(50))
    view = finish(runner)
    assert view["state"] == "stopped"
    assert view["events"][-1]["step"] == 2
    assert view["events"][-1]["saved"] is True


def test_a_checkpoint_is_made_the_hosts_own_before_the_page_hears_of_it():
    host = WatchedHost()
    runner = JobRunner(host)
    seen = []

    def work(token: CancelToken) -> Iterator[Event]:
        yield Saved(file="models/dog.safetensors", kind="checkpoint")
        seen.extend(host.calls)
        yield Saved(file="state/1", kind="state")
        yield Finished()

    runner.start("train", "dog", work)
    finish(runner)
    assert seen[-1] == "adopt dog.safetensors"
    assert host.calls.count("adopt dog.safetensors") == len([call for call in host.calls if "adopt" in call]) == 1


def test_a_page_gets_only_what_it_has_not_seen_but_all_of_another_job():
    runner = JobRunner(WatchedHost())
    first = runner.start("train", "a", counting(3))
    finish(runner)
    assert len(runner.view(first.id, 3)["events"]) == 2
    runner.start("train", "b", counting(3))
    finish(runner)
    assert len(runner.view(first.id, 3)["events"]) == 5


def test_a_full_log_keeps_the_whole_curve_coarser_and_everything_else():
    log = EventLog(capacity=100)
    log.append(Started(job="train", total=1000))
    for step in range(1, 1001):
        log.append(Step(step=step, total=1000))
    log.append(Failed(problems=("x",)))
    events = [event for _, event in log.since(0)]
    steps = [event.step for event in events if isinstance(event, Step)]
    assert len(events) <= 100
    assert steps[0] < 100
    assert steps[-1] == 1000
    assert steps == sorted(steps)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Failed)


def test_a_phases_progress_replaces_its_predecessor():
    log = EventLog()
    for done in range(100):
        log.append(Phase(name="encoding", done=done, total=100))
    log.append(Phase(name="saving"))
    assert [event.name for _, event in log.since(0)] == ["encoding", "saving"]
    assert log.since(0)[0][0] == 100


def test_the_standalone_host_is_a_host(tmp_path: Path):
    assert isinstance(StandaloneHost(tmp_path), Host)
