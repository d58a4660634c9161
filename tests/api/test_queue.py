"""Several runs and merges, one after the other: order, stops, mistakes, and a restart in the middle."""
from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib_sdtrain.api.queue import MOST
from lib_sdtrain.api.queue_kinds import TrainKind
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Preview
from lib_sdtrain.host.standalone import StandaloneHost
from tests.api.merge_site import keyed_site
from tests.api.sites import PRESET, client_of, draw_subject, run, services_in
from tests.fake_engine import FakeEngine

WAIT = 60


class Gate:
    """Lets the fake engine's steps through when it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, step: int) -> None:
        self.open.wait(WAIT)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def services(tmp_path: Path, gate):
    found = services_in(tmp_path, FakeEngine(str(draw_subject(tmp_path / "subject")), at_step=gate))
    yield found
    gate.open.set()
    found.queue.close()
    found.runner.stop("now")


def train(name: str, length: int = 3) -> dict:
    return {"preset": PRESET, "settings": {"train.length": length, "save.name": name}}


def until(condition) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def labels(services, part: str) -> list[str]:
    return [task["label"] for task in services.queue.as_dict()[part]]


def test_three_tasks_are_done_in_their_order_the_first_at_once(services, gate):
    for name in ("one", "two", "three"):
        services.queue.add("train", train(name))
    assert services.queue.as_dict()["running"]["label"] == "one"
    assert labels(services, "waiting") == ["two", "three"]
    gate.open.set()
    until(lambda: len(labels(services, "ended")) == 3)
    assert labels(services, "ended") == ["three", "two", "one"]
    assert {task["state"] for task in services.queue.as_dict()["ended"]} == {"finished"}
    configs = [path.read_text("utf-8") for path in sorted((services.host.output_dir() / "runs").glob("*/config.yaml"))]
    assert [f"name: {name}" in text for name, text in zip(("one", "two", "three"), configs, strict=True)] == [True] * 3


def test_mistakes_are_told_when_a_task_is_added_and_it_is_not_taken(services):
    with pytest.raises(UserError, match="lenght") as caught:
        services.queue.add("train", {"settings": {"train": {"lenght": 3}}})
    assert "did you mean" in str(caught.value)
    with pytest.raises(UserError, match="no run"):
        services.queue.add("resume", {"run": "../.."})
    with pytest.raises(UserError):
        services.queue.add("merge", {"a": "nothing"})
    with pytest.raises(UserError, match="cannot be queued"):
        services.queue.add("delete", {})
    assert services.queue.as_dict()["waiting"] == []


def test_a_failed_or_stopped_task_does_not_keep_the_next_from_its_turn(services, gate):
    def crash(step: int) -> None:
        gate(step)
        if not crash.done:
            crash.done = True
            raise RuntimeError("out of memory")

    crash.done = False
    services.train.engine.at_step, services.train.engine.pause = crash, 0.01
    for name in ("breaks", "stopped", "ends"):
        services.queue.add("train", train(name, 3000 if name == "stopped" else 3))
    gate.open.set()
    until(lambda: services.runner.job.label == "stopped")
    services.runner.stop("save")
    until(lambda: len(labels(services, "ended")) == 3)
    ended = {task["label"]: task for task in services.queue.as_dict()["ended"]}
    assert {name: task["state"] for name, task in ended.items()} == {
        "breaks": "failed", "stopped": "stopped", "ends": "finished"}  # fmt: skip
    assert "out of memory" in ended["breaks"]["problems"][0]


def test_a_task_that_has_become_impossible_ends_as_failed_and_says_why(services, gate, tmp_path):
    services.queue.hold()
    services.queue.add("train", train("gone"))
    services.queue.add("train", {"settings": {"data.concepts": [{"instance_dir": str(draw_subject(tmp_path / "two")),
                                                                 "name": "two"}], "train.length": 2}})  # fmt: skip
    for picture in (tmp_path / "subject").iterdir():
        picture.unlink()
    gate.open.set()
    services.queue.go_on()
    until(lambda: len(labels(services, "ended")) == 2)
    ended = {task["label"]: task for task in services.queue.as_dict()["ended"]}
    assert ended["gone"]["state"] == "failed"
    assert "no picture" in ended["gone"]["problems"][0]
    assert ended["two"]["state"] == "finished"


def test_jobs_that_are_over_before_their_start_has_returned(tmp_path, monkeypatch):
    services = services_in(tmp_path)
    submitted = ThreadPoolExecutor.submit

    def at_once(self, *args):
        future = submitted(self, *args)
        future.exception(WAIT)
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", at_once)
    services.queue.hold()
    for name in "abc":
        services.queue.add("train", train(name))
    thread = threading.Thread(target=services.queue.go_on, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert labels(services, "ended") == ["c", "b", "a"]


def test_a_held_queue_starts_nothing_until_it_goes_on(services, gate):
    services.queue.hold()
    services.queue.add("train", train("one"))
    assert services.runner.job is None
    assert services.queue.as_dict()["held"] == "by you"
    gate.open.set()
    services.queue.go_on()
    until(lambda: labels(services, "ended") == ["one"])


def test_a_direct_start_goes_before_what_is_held_and_the_queue_waits_for_it(services, gate):
    services.queue.hold()
    services.queue.add("train", train("queued"))
    from lib_sdtrain.api.choice import Choice

    services.train.start(Choice(PRESET, {"train.length": 3, "save.name": "direct"}))
    services.queue.go_on()
    assert labels(services, "waiting") == ["queued"]
    gate.open.set()
    until(lambda: labels(services, "ended") == ["queued"])


def test_tasks_can_be_moved_and_taken_out(services):
    services.queue.hold()
    ids = {name: services.queue.add("train", train(name)).id for name in "abc"}
    services.queue.move(ids["c"], -5)
    services.queue.move(ids["a"], 1)
    assert labels(services, "waiting") == ["c", "b", "a"]
    services.queue.remove(ids["b"])
    assert labels(services, "waiting") == ["c", "a"]
    first = services.queue.add("train", train("first"), first=True)
    assert labels(services, "waiting")[0] == "first"
    with pytest.raises(UserError, match="no task"):
        services.queue.remove("nothing")
    services.queue.go_on()
    with pytest.raises(UserError, match="is running"):
        services.queue.remove(first.id)


def test_settings_are_those_of_the_moment_when_the_task_was_added(services, tmp_path):
    concept = {"instance_dir": str(tmp_path / "subject")}
    services.train.presets.save("mine", {"train.length": 7, "data.concepts": [concept]})
    services.queue.hold()
    services.queue.add("train", {"preset": "mine"})
    services.train.presets.delete("mine")
    request = services.queue.as_dict(with_requests=True)["waiting"][0]["request"]
    assert request["settings"]["train"]["length"] == 7
    assert "preset" not in request


def test_what_was_cut_off_without_a_state_begins_again_beside_what_is_there(services, gate, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(StandaloneHost, "checkpoint_dir", lambda self: folder)
    task = services.queue.add("train", train("cat"))
    (folder / "cat-000100.safetensors").write_bytes(b"mine")
    kind, request = TrainKind(services.train).after_restart(task.request, "")
    assert (kind, request["settings"]["save"]["name"]) == ("train", "cat-2")
    assert request["settings"]["train"] == task.request["settings"]["train"]
    gate.open.set()
    until(lambda: not services.queue.as_dict()["waiting"] and not services.runner.job.active)
    assert TrainKind(services.train).start(request).done.wait(WAIT)
    assert (folder / "cat-000100.safetensors").read_bytes() == b"mine"


def test_two_tasks_may_not_write_the_same_file(services, tmp_path):
    services.queue.hold()
    body = train("same")
    body["settings"]["save.dir"] = str(tmp_path / "models")
    services.queue.add("train", body)
    with pytest.raises(UserError, match=r"same.safetensors") as caught:
        services.queue.add("train", body)
    assert caught.value.problems[0].where == "save.name"
    forms = {**body["settings"], "save.name": "sa", "save.also": [{"suffix": "me", "dtype": "fp32"}]}
    with pytest.raises(UserError, match=r"same.safetensors"):
        services.queue.add("train", {**body, "settings": forms})


@pytest.mark.fault("the queue as it was, waiting for your word")
def test_after_a_restart_everything_is_there_and_held(services, gate, tmp_path):
    for name in ("running", "waiting"):
        services.queue.add("train", train(name, 30))
    until(lambda: services.queue.as_dict()["running"]["run"])
    left = (services.host.output_dir() / "queue.json").read_text("utf-8")  # the process is killed here
    gate.open.set()
    services.queue.close()
    services.runner.stop("now")
    assert services.runner.job.done.wait(WAIT)
    (services.host.output_dir() / "queue.json").write_text(left, "utf-8")
    again = services_in(tmp_path)
    assert again.queue.as_dict()["held"] == "by a restart"
    assert labels(again, "waiting") == ["running", "waiting"]
    assert again.runner.job is None
    again.queue.go_on()
    until(lambda: len(labels(again, "ended")) == 2)
    assert {task["state"] for task in again.queue.as_dict()["ended"]} == {"finished"}


def test_a_run_that_has_told_all_before_it_is_known_here_is_known_by_its_folder(services, monkeypatch):
    kind, engine = type(services.queue._kinds["train"]), services.train.engine
    begin = kind.start

    def late(self, request):
        job = begin(self, request)
        assert engine.began.wait(WAIT)
        until(lambda: any(isinstance(event, Preview) for _, event in job.log.since(0)))  # nothing more until a step
        return job

    monkeypatch.setattr(kind, "start", late)
    services.queue.add("train", train("quick", 30))
    assert services.queue.as_dict()["running"]["run"]


@pytest.mark.fault("the run goes on from its state")
def test_what_was_cut_off_with_a_saved_state_goes_on_from_it(services, gate, tmp_path):
    gate.open.set()
    services.train.engine.pause = 0.01
    services.queue.add("train", train("long", 400))
    services.queue.add("train", train("next"))
    logs = tmp_path / "outputs" / "runs"
    # before the first step there is no state
    until(lambda: any('"type": "step"' in log.read_text() for log in logs.glob("*/events.jsonl")))
    services.queue.close()  # as when the program is ended in order
    services.runner.stop("save")
    assert services.runner.job.done.wait(WAIT)
    until(lambda: services.queue.as_dict()["running"] is None)
    again = services_in(tmp_path)
    waiting = again.queue.as_dict(with_requests=True)["waiting"]
    assert [task["kind"] for task in waiting] == ["resume", "train"]
    assert waiting[0]["request"]["run"].endswith("sks-cup")
    again.queue.go_on()
    until(lambda: len(labels(again, "ended")) == 2)
    assert len(again.train.runs()) == 2


NO_REQUEST = '{"held": "", "current": null, "ended": [], "waiting": [{"kind": "train", "request": 3, "label": "x"}]}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"waiting": []}', NO_REQUEST])
@pytest.mark.fault("a notice; the damaged file is kept beside")
def test_a_damaged_file_is_set_aside_and_told(tmp_path, text):
    file = tmp_path / "outputs" / "queue.json"
    file.parent.mkdir()
    file.write_text(text, "utf-8")
    queue = services_in(tmp_path).queue
    assert "could not be read" in queue.as_dict()["notice"]
    assert (tmp_path / "outputs" / "queue.json.damaged").read_text("utf-8") == text
    assert queue.as_dict()["waiting"] == []


def test_a_queue_has_an_end(services, monkeypatch):
    services.queue.hold()
    monkeypatch.setattr("lib_sdtrain.api.queue.MOST", 2)
    for name in "ab":
        services.queue.add("train", train(name))
    with pytest.raises(UserError, match="are waiting already"):
        services.queue.add("train", train("c"))
    assert MOST >= 100


def test_a_merge_waits_with_its_models_whatever_is_loaded_then(tmp_path):
    keyed_site(tmp_path)
    services = services_in(tmp_path)
    services.queue.hold()
    services.queue.add("merge", {"a": "a.safetensors", "b": "b.safetensors", "weights_alpha": ",".join(["0.5"] * 26)})
    task = services.queue.as_dict(with_requests=True)["waiting"][0]
    assert task["request"]["a"] == str(tmp_path / "models" / "a.safetensors")
    services.queue.go_on()
    until(lambda: labels(services, "ended"))
    assert services.queue.as_dict()["ended"][0]["problems"] == ()
    assert services.queue.as_dict()["ended"][0]["state"] == "finished"
    assert services.merge.history.entries()[0]["form"]["a"] == "a.safetensors"


def test_a_run_is_lengthened_in_its_turn(services, gate):
    gate.open.set()
    name = run(services, train__length=4)
    services.queue.add("resume", {"run": name, "settings": {"train.length": 9}})
    until(lambda: labels(services, "ended"))
    assert services.train.run_named(name).step == 9


def test_the_api_queues_looks_moves_and_holds(services, gate):
    client = client_of(services)
    client.post("/sdtrain/v1/queue-hold")
    body = {"preset": PRESET, "settings": {"train": {"length": 3}}, "queue": True}
    first = client.post("/sdtrain/v1/train", json=body).json()
    second = client.post("/sdtrain/v1/queue", json={"kind": "train", "request": train("x")}).json()
    moved = client.post(f"/sdtrain/v1/queue/{second['id']}/move", json={"by": -1}).json()
    assert [task["id"] for task in moved["waiting"]] == [second["id"], first["id"]]
    assert client.delete(f"/sdtrain/v1/queue/{first['id']}").json()["id"] == first["id"]
    assert client.delete(f"/sdtrain/v1/queue/{first['id']}").status_code == 422
    seen = client.get("/sdtrain/v1/view/queue").json()
    assert seen["held"] == "by you"
    assert "request" not in seen["waiting"][0]
    gate.open.set()
    client.post("/sdtrain/v1/queue-go-on")
    until(lambda: labels(services, "ended"))
    assert client.post("/sdtrain/v1/queue-clear").json()["ended"] == []


def test_the_queue_s_file_holds_plain_data(services):
    services.queue.hold()
    services.queue.add("train", train("x"))
    kept = json.loads((services.host.output_dir() / "queue.json").read_text("utf-8"))
    assert kept["waiting"][0]["label"] == "x"
    assert kept["held"] == "by you"
