"""A WebUI that other machines can reach, and whose page is to name no folders."""
from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys import installed_webui
from tests.journeys.conftest import draw_subject
from tests.journeys.installed_webui import FOLDER, WEBUI_MARKS, Webui
from tests.journeys.steps import wait_plan

pytestmark = WEBUI_MARKS
FOLDERS = ("data_concepts_0_instance_dir", "data_concepts_0_class_dir", "data_cache_dir", "save_dir")


@pytest.fixture(scope="module")
def webui(tmp_path_factory) -> Iterator[Webui]:
    data = tmp_path_factory.mktemp("open")
    installed_webui.prepare_data(data)
    draw_subject(data / "subject", 4)
    started = installed_webui.start(Path(FOLDER), data, "--listen", "--hide-ui-dir-config")
    yield started
    started.process.kill()
    started.process.wait()


def test_no_folder_is_named_and_dropped_pictures_still_work(webui, open_page):
    page = open_page(webui.url)
    page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
    assert "8 pictures" in wait_plan(page)
    page.click("#sdtrain_train_more .label-wrap")
    page.locator("#sdtrain_train_train_batch_size").wait_for()
    assert [name for name in FOLDERS if page.locator(f"#sdtrain_train_{name}").is_visible()] == []
    assert page.locator("#sdtrain_train_uploads").is_visible()
    page.set_input_files("#sdtrain_train_uploads input[type=file]", sorted((webui.data / "subject").glob("*")))
    page.locator(".sdtrain-plan", has_text="4 pictures").wait_for()


def test_paths_stay_inside_the_webui(webui, tmp_path):
    outside = draw_subject(tmp_path / "private", 2)
    refused = mistakes(webui, {"data.concepts.0.instance_dir": str(outside), "save.dir": "/etc",
                               "model.checkpoint": "/etc/passwd"})  # fmt: skip
    assert set(refused) == {"data.concepts.0.instance_dir", "save.dir", "model.checkpoint"}
    assert all("outside the folders" in what for what in refused.values())
    inside = {"data.concepts.0.instance_dir": str(webui.data / "subject")}
    assert "data.concepts.0.instance_dir" not in mistakes(webui, inside)


def mistakes(webui: Webui, settings: dict[str, str]) -> dict[str, str]:
    """What the plan of these settings finds wrong, by place."""
    try:
        webui.post("/sdtrain/v1/plan", {"settings": settings})
    except urllib.error.HTTPError as error:
        return {problem["where"]: problem["what"] for problem in json.load(error)["problems"]}
    return {}


def test_settings_that_do_not_matter_are_out_of_sight_until_they_do(webui, open_page):
    page = open_page(webui.url)
    page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
    wait_plan(page)
    page.click("#sdtrain_train_more .label-wrap")
    rank = page.locator("#sdtrain_train_method_rank")
    page.locator("#sdtrain_train_train_batch_size").wait_for()
    assert not rank.is_visible()
    page.locator("#sdtrain_train_method_kind input[value=lora]").check()
    rank.wait_for(state="visible")
    page.locator("#sdtrain_train_save_vae").wait_for(state="hidden")
    page.locator("#sdtrain_train_train_token_embedding_words").wait_for(state="hidden")  # the preset's word
    page.locator(".sdtrain-plan", has_text="left out of preset toybox-dreambooth").wait_for()
    assert "8 pictures" in wait_plan(page)
