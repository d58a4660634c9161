"""What goes wrong around a training in a real WebUI: afterwards it draws as before, and the run goes on bit for bit."""
from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.journeys import installed_webui
from tests.journeys.conftest import draw_subject
from tests.journeys.installed_webui import FOLDER, WEBUI_MARKS
from tests.journeys.live_site import LiveSite, reload_ui
from tests.journeys.steps import open_tab, press, status, wait_state, wait_step
from tests.journeys.test_webui_home import RUNS, V1, choice, go, job, opened, wait_for

pytestmark = WEBUI_MARKS
LENGTH = "120"


@pytest.fixture(scope="module")
def subject(live_site) -> str:
    return str(draw_subject(live_site.webui.data / "subject", 4))


@pytest.fixture(scope="module")
def straight(live_site, subject) -> bytes:
    """The file of the run that nothing happens to: names and folders are not in it."""
    go(live_site, "train", run(subject, "straight"))
    live_site.wait_job()
    return (live_site.models / "straight.safetensors").read_bytes()


@pytest.fixture
def site(live_site, subject) -> LiveSite:
    live_site.options(sd_model_checkpoint="tiny.safetensors")
    return live_site


def run(subject: str, name: str) -> dict:
    """The run that things happen to."""
    return choice(subject, name, train__length=LENGTH, save__state_every="10", model__checkpoint="tiny.safetensors")


def begun(site: LiveSite, subject: str, name: str, step: int = 15) -> None:
    """Start it and wait until it has a saved state behind it."""
    go(site, "train", run(subject, name))
    wait_for(lambda: at_step(site) >= step, f"step {step}")


def at_step(site: LiveSite) -> int:
    return max((event["step"] for event in job(site)["events"] if event["type"] == "step"), default=0)


@pytest.mark.fault("the switch waits for its turn; the training is not touched")
def test_another_checkpoint_chosen_while_training(site, subject, straight):
    picture, weights = site.picture(), site.weights()
    begun(site, subject, "switched")
    wish = threading.Thread(target=site.options, kwargs={"sd_model_checkpoint": "two.safetensors"})
    wish.start()
    site.wait_job()
    wish.join(120)
    assert (site.models / "switched.safetensors").read_bytes() == straight
    assert Path(site.webui.get("/probe/state")["checkpoint"]).name == "two.safetensors"
    other = site.picture()
    assert other[0] != picture[0]
    assert "Model: two" in other[1]
    site.options(sd_model_checkpoint="tiny.safetensors")
    assert (site.picture(), site.weights()) == (picture, weights)


@pytest.mark.fault("the run saves and stops, the page offers to go on; the WebUI draws as before")
def test_the_ui_reloaded_while_training(site, subject, straight, open_page):
    picture, weights = site.picture(), site.weights()
    page = opened(site, open_page)
    begun(site, subject, "reloaded")
    wait_step(page, 15)
    reload_ui(page)
    page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
    wait_state(page, "stopped")
    assert "saved" in status(page)
    assert "not saved" not in status(page)
    assert (site.picture(), site.weights()) == (picture, weights)
    press(page, "resume")
    wait_state(page, "finished")
    assert (site.models / "reloaded.safetensors").read_bytes() == straight
    assert site.picture() == picture


@pytest.mark.fault("the reason where the run is shown; the WebUI draws as before")
def test_an_exception_while_training(site, subject, straight, open_page):
    picture, before = site.picture(), site.webui.get("/probe/state")
    page = opened(site, open_page)
    site.webui.post("/probe/fault?step=25")
    go(site, "train", run(subject, "raised"))
    wait_state(page, "failed")
    site.webui.post("/probe/fault")
    assert "out of memory" in page.locator('#sdtrain_run [data-part="problems"]').inner_text()
    assert site.webui.get("/probe/state") == before
    assert site.picture() == picture
    press(page, "resume")
    wait_state(page, "finished")
    assert (site.models / "raised.safetensors").read_bytes() == straight


@pytest.mark.fault("after the restart it is listed as cut off, with a button to go on; the WebUI draws as before")
def test_the_webui_killed_while_training(site, subject, straight, open_page):
    picture, weights = site.picture(), site.weights()
    begun(site, subject, "killed", step=25)
    for label in ("waits", "waits-too"):
        go(site, "train", {**choice(subject, label), "queue": True})
    site.webui.process.send_signal(signal.SIGKILL)
    site.webui.process.wait()
    assert not (site.models / "killed.safetensors").exists()
    site.webui = installed_webui.start(Path(FOLDER), site.webui.data)
    site.options(sd_model_checkpoint="tiny.safetensors")
    assert (site.picture(), site.weights()) == (picture, weights)
    page = opened(site, open_page)
    open_tab(page, "Runs")
    page.locator(f"{RUNS}_view .sdr-warning", has_text="The program was restarted").wait_for()
    page.locator(f"{RUNS}_table tbody tr", has_text="killed").filter(has_text="cut off").first.click()
    page.click("#sdtrain_runs_resume")
    wait_for((site.models / "killed.safetensors").is_file, "the result")
    assert (site.models / "killed.safetensors").read_bytes() == straight
    wait_for(lambda: job(site)["state"] == "finished", "the end")
    assert [task["label"] for task in site.webui.get(f"{V1}/queue")["waiting"]] == ["waits", "waits-too"]
    site.webui.post(f"{V1}/queue-clear")
    assert (site.picture(), site.weights()) == (picture, weights)
