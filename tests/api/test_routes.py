"""HTTP under /sdtrain/v1/: what the page polls, and what programs may do with `--api`."""
from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.history import PATH_KINDS
from lib_sdtrain.api.routes import add_routes
from lib_sdtrain.api.services import Services
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.run import Concept, RunSettings
from tests.fake_engine import FakeEngine

OPEN = SimpleNamespace(auth=None, tokens={})


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    folder = tmp_path / "subject"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def served(tmp_path: Path, subject: Path):
    services = Services(StandaloneHost(tmp_path), FakeEngine(str(subject)))
    app = FastAPI()
    add_routes(app, services, Access(OPEN), programs=True)
    return SimpleNamespace(client=TestClient(app), services=services, service=services.train, app=app)


def finish(served) -> dict:
    assert served.service.runner.job.done.wait(20)
    return served.client.get("/sdtrain/v1/job").json()["job"]


def test_nothing_has_run_yet(served):
    assert served.client.get("/sdtrain/v1/job").json()["job"] is None


def test_a_run_is_planned_started_and_watched(served):
    plan = served.client.post("/sdtrain/v1/plan", json={"preset": "toybox-dreambooth"}).json()
    assert plan["images"] == 3
    started = served.client.post(
        "/sdtrain/v1/train", json={"preset": "toybox-dreambooth", "settings": {"train": {"length": 7}}}
    ).json()
    job = finish(served)
    assert job["id"] == started["id"]
    assert job["state"] == "finished"
    assert [event["step"] for event in job["events"] if event["type"] == "step"] == list(range(1, 8))
    rest = served.client.get("/sdtrain/v1/job", params={"id": job["id"], "after": job["last"] - 1}).json()["job"]
    assert len(rest["events"]) == 1


def test_mistakes_come_back_all_at_once_and_start_nothing(served):
    answer = served.client.post("/sdtrain/v1/train", json={"settings": {
        "train": {"batch_size": 0, "lenght": 5}, "data.concepts.0.instance_dir": "/nowhere",
    }})  # fmt: skip
    assert answer.status_code == 422
    assert "train.lenght" in {problem["where"] for problem in answer.json()["problems"]}
    assert served.service.runner.job is None


def test_a_second_start_is_refused(served):
    served.service.engine.pause = 0.2
    body = {"preset": "toybox-dreambooth"}
    assert served.client.post("/sdtrain/v1/train", json=body).status_code == 200
    refused = served.client.post("/sdtrain/v1/train", json=body)
    assert refused.status_code == 422
    assert "still running" in refused.json()["problems"][0]["what"]
    assert served.client.post("/sdtrain/v1/stop", json={"how": "now"}).json() == {"stopped": True}
    assert finish(served)["state"] == "stopped"


def test_a_stopped_run_is_listed_and_goes_on(served):
    served.service.engine.pause = 0.05
    served.client.post("/sdtrain/v1/train", json={"preset": "toybox-dreambooth"})
    served.service.engine.began.wait(10)
    time.sleep(0.2)
    served.client.post("/sdtrain/v1/stop", json={"how": "save"})
    finish(served)
    runs = served.client.get("/sdtrain/v1/runs").json()
    assert runs[0]["end"] == "stopped"
    assert runs[0]["resumable"]
    served.service.engine.pause = 0
    assert served.client.post("/sdtrain/v1/resume", json={"run": runs[0]["name"]}).status_code == 200
    assert finish(served)["state"] == "finished"


@pytest.mark.parametrize("run", ["", "../..", "/etc", "nothing"])
def test_only_listed_runs_can_go_on(served, run):
    assert served.client.post("/sdtrain/v1/resume", json={"run": run}).status_code == 422


def test_previews_of_the_job_are_served_and_nothing_else(served, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    served.client.post("/sdtrain/v1/train", json={"preset": "toybox-dreambooth"})
    job = finish(served)
    address = f"/sdtrain/v1/job/{job['id']}/preview"
    assert served.client.get(f"{address}/10/0").headers["content-type"] == "image/png"
    for other in (f"{address}/11/0", f"{address}/10/5", "/sdtrain/v1/job/other/preview/10/0"):
        assert served.client.get(other).status_code == 404
    for wrong in (f"{address}/-2/0", f"{address}/ten/0", "/sdtrain/v1/job?after=x", "/sdtrain/v1/job?before=1"):
        answer = served.client.get(wrong)
        assert answer.status_code == 422
        assert answer.json()["problems"]
    assert served.client.get(f"{address}/..%2f..%2fsecret.png/0").status_code in (404, 422)


def test_without_the_api_only_watching_is_there(served):
    app = FastAPI()
    add_routes(app, served.services, Access(OPEN), programs=False)
    client = TestClient(app)
    assert client.get("/sdtrain/v1/job").status_code == 200
    for path in ("schema", "checkpoints", "presets", "runs"):
        assert client.get(f"/sdtrain/v1/{path}").status_code == 404
    for path in ("plan", "train", "resume", "stop"):
        assert client.post(f"/sdtrain/v1/{path}", json={}).status_code == 404


def test_watching_changes_nothing(served):
    routes = [route for route in served.app.routes if route.path.startswith("/sdtrain/v1/job")]
    assert {method for route in routes for method in route.methods} == {"GET"}


def test_the_schema_describes_every_setting(served):
    found = served.client.get("/sdtrain/v1/schema").json()["settings"]
    assert [entry["path"] for entry in found] == [item.path for item in declared(RunSettings)]
    assert all(entry["help"] for entry in found)


def test_a_page_that_others_reach_may_not_read_folders_or_write_anywhere(tmp_path, subject):
    engine = FakeEngine(str(subject))
    services = Services(StandaloneHost(tmp_path / "home", local=False), engine)
    app = FastAPI()
    add_routes(app, services, Access(OPEN), programs=True)
    answer = TestClient(app).post("/sdtrain/v1/train", json={
        "preset": "toybox-dreambooth", "settings": {"save.dir": "/tmp", "model.checkpoint": "/etc/passwd"},
    })  # fmt: skip
    assert answer.status_code == 422
    told = {problem["where"]: problem["what"] for problem in answer.json()["problems"]}
    assert {"data.concepts.0.instance_dir", "save.dir", "model.checkpoint"} <= set(told)
    assert all("outside the folders" in what for what in told.values())


def test_every_setting_that_is_a_path_is_confined():
    paths = {item.path for cls in (RunSettings, Concept) for item in declared(cls) if item.meta.kind in PATH_KINDS}
    named = {item.path for cls in (RunSettings, Concept) for item in declared(cls)
             if item.type is str and item.name.endswith(("dir", "vae", "file", "folder", "path"))}  # fmt: skip
    assert {"instance_dir", "class_dir", "data.cache_dir", "save.dir"} <= paths
    assert named <= paths


def test_nothing_that_is_there_is_overwritten(served, tmp_path):
    (tmp_path / "dog.safetensors").write_bytes(b"mine")
    answer = served.client.post("/sdtrain/v1/train", json={
        "preset": "toybox-dreambooth", "settings": {"save": {"name": "dog", "dir": str(tmp_path)}},
    })  # fmt: skip
    assert answer.status_code == 422
    assert (tmp_path / "dog.safetensors").read_bytes() == b"mine"


def test_what_makes_a_run_fit_is_told_and_changes_nothing(served):
    body = {"preset": "toybox-dreambooth"}
    found = served.client.post("/sdtrain/v1/fit", json={**body, "gigabytes": 8}).json()
    assert (found["fits"], found["changes"]) == (True, {"train.gradient_checkpointing": True})
    assert served.client.post("/sdtrain/v1/fit", json=body).json()["gigabytes"] == 6.0
    for wrong in (0, -1, True, "8", 10**9):
        refused = served.client.post("/sdtrain/v1/fit", json={**body, "gigabytes": wrong})
        assert refused.status_code == 422, wrong
        assert refused.json()["problems"][0]["where"] == "gigabytes"
    assert served.service.runner.job is None
