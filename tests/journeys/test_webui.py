"""The tab inside a real AUTOMATIC1111 WebUI, on the checkpoint that it has loaded."""
from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.journeys import installed_webui
from tests.journeys.conftest import draw_subject
from tests.journeys.installed_webui import FOLDER, WEBUI_MARKS, Webui
from tests.journeys.steps import LONG, curve_points, press, set_text, start, status, wait_plan, wait_state, wait_step

pytestmark = WEBUI_MARKS


@pytest.fixture(scope="module")
def webui(tmp_path_factory) -> Iterator[Webui]:
    data = tmp_path_factory.mktemp("webui")
    installed_webui.prepare_data(data)
    draw_subject(data / "subject", 4)
    started = installed_webui.start(Path(FOLDER), data)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.fixture
def train_page(webui, open_page):
    """Opens the tab with a small run on the loaded checkpoint filled in."""

    def open_one(name: str, steps: int = 4):
        page = open_page(webui.url)
        page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
        page.wait_for_selector("#sdtrain_train_plan .sdtrain-plan", state="attached")
        page.wait_for_function("() => document.querySelector('#sdtrain_train').dataset.state")
        if page.locator("#sdtrain_train_again").is_visible():
            press(page, "again")  # an earlier run's end is shown
        if page.locator("#sdtrain_train_preset input").input_value() != "my own settings":
            page.click("#sdtrain_train_preset input")
            page.locator("#sdtrain_train_preset li", has_text="my own settings").click()
        if page.locator("#sdtrain_train_forget").is_visible():
            press(page, "forget")  # what an earlier start has left
        length = page.locator("#sdtrain_train_train_length textarea").element_handle()
        page.wait_for_function("box => box.value === '1000'", arg=length)  # the preset's answer has come
        for path, text in (
            ("data.concepts.0.instance_dir", str(webui.data / "subject")),
            ("data.concepts.0.instance_prompt", "a photo of sks ball"), ("data.resolution", "64"),
            ("train.length", str(steps)), ("train.learning_rate", "1e-4"), ("save.name", name),
        ):
            set_text(page, path, text)
        page.locator(".sdtrain-plan", has_text=f"{steps} steps").wait_for()
        return page

    return open_one


def picture(webui: Webui) -> Image.Image:
    answer = webui.post("/sdapi/v1/txt2img", {"prompt": "a ball", "steps": 2, "width": 64, "height": 64, "seed": 1})
    return Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))


def test_train_on_the_loaded_checkpoint_stop_resume_and_make_a_picture_with_the_result(webui, train_page):
    before_picture = picture(webui)
    before = webui.get("/probe/state")
    page = train_page("first", 100)
    assert "tiny.safetensors" in page.locator("#sdtrain_train_model_checkpoint input").input_value()
    assert "(loaded)" in page.locator("#sdtrain_train_model_checkpoint input").input_value()
    start(page)
    wait_step(page, 3)
    press(page, "stop_save")
    wait_state(page, "stopped")
    assert webui.get("/probe/state") == before
    press(page, "resume")
    wait_state(page, "finished")
    assert webui.get("/probe/state") == before
    assert curve_points(page) >= 1
    titles = {model["title"].split(" ")[0]: model for model in webui.get("/sdapi/v1/sd-models")}
    assert "first.safetensors" in titles
    assert (webui.models / "first.yaml").exists()
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": titles["first.safetensors"]["title"]})
    after_picture = picture(webui)
    assert webui.get("/probe/state")["checkpoint"].endswith("first.safetensors")
    assert after_picture.tobytes() != before_picture.tobytes()
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": titles["tiny.safetensors"]["title"]})
    assert picture(webui).tobytes() == before_picture.tobytes()


def test_the_result_can_be_used_with_one_click(webui, train_page):
    page = train_page("clicked", 2)
    start(page)
    wait_state(page, "finished")
    press(page, "use")
    page.wait_for_function(
        "() => document.querySelector('#setting_sd_model_checkpoint input').value.includes('clicked')"
    )
    assert webui.get("/sdapi/v1/options")["sd_model_checkpoint"].startswith("clicked")
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny.safetensors"})


def test_stopping_now_leaves_the_host_as_it_was(webui, train_page):
    before = webui.get("/probe/state")
    page = train_page("cancelled", 500)
    start(page)
    wait_step(page, 2)
    press(page, "stop_now")
    wait_state(page, "stopped")
    assert webui.get("/probe/state") == before
    assert not (webui.models / "cancelled.safetensors").exists()


@pytest.mark.fault("the reason in the tab; the WebUI draws as before")
def test_a_crash_leaves_the_host_as_it_was_and_is_told(webui, train_page):
    before = webui.get("/probe/state")
    webui.post("/probe/fault?step=2")
    page = train_page("crashed", 10)
    start(page)
    wait_state(page, "failed")
    webui.post("/probe/fault?step=0")
    assert "out of memory" in page.locator('#sdtrain_run [data-part="problems"]').inner_text()
    assert webui.get("/probe/state") == before


def test_a_reloaded_page_finds_the_run_and_the_host_is_as_it_was(webui, train_page):
    before = webui.get("/probe/state")
    page = train_page("reloaded", 500)  # outlasts the page's coming back
    start(page)
    wait_step(page, 2)
    page.reload()
    page.wait_for_selector("#sdtrain_train[data-booted]", state="attached")
    wait_state(page, "running")
    press_hidden = "() => document.querySelector('#sdtrain_train_stop_save').click()"
    page.evaluate(press_hidden)
    wait_state(page, "stopped")
    assert webui.get("/probe/state") == before


@pytest.mark.fault("training saves and stops")
def test_the_webuis_own_interrupt_saves_and_stops(webui, train_page):
    page = train_page("interrupted", 500)
    start(page)
    wait_step(page, 2)
    progress = webui.get("/sdapi/v1/progress?skip_current_image=true")
    assert progress["state"]["job"].startswith("SD Train")
    assert progress["state"]["sampling_steps"] == 500
    assert progress["state"]["sampling_step"] >= 2
    webui.post("/sdapi/v1/interrupt")
    wait_state(page, "stopped")
    assert "saved" in status(page)


def test_a_picture_asked_for_meanwhile_waits_for_its_turn(webui, train_page):
    page = train_page("queued", 500)
    start(page)
    wait_step(page, 2)
    made: list[Image.Image] = []
    thread = threading.Thread(target=lambda: made.append(picture(webui)))
    thread.start()
    thread.join(timeout=3)
    assert thread.is_alive()
    press(page, "stop_now")
    thread.join(timeout=LONG / 1000)
    assert len(made) == 1


def test_a_wrong_folder_is_told_in_the_webui_too(webui, train_page):
    page = train_page("wrong", 3)
    set_text(page, "data.concepts.0.instance_dir", "/nowhere/at/all")
    assert "no folder" in wait_plan(page, ready=False)
    page.locator("#sdtrain_train_data_concepts_0_instance_dir .sdtrain-mistake").wait_for()


def test_the_tab_is_built_in_a_blink(webui):
    assert webui.get("/probe/start-time") < 0.1


def test_no_default_is_frozen_in_the_ui_configuration(webui):
    config = (webui.data / "ui-config.json").read_text("utf-8")
    assert "txt2img" in config
    assert "sdtrain" not in config
