"""Coming back to the tab: settings, names and times of earlier runs; and several subjects in one."""
from __future__ import annotations

import re
from threading import Event, Timer

import pytest
import yaml

from lib_sdtrain.api.service import TrainService
from lib_sdtrain.ui.train.handlers import TrainHandlers
from tests.journeys.conftest import draw_subject
from tests.journeys.steps import TRAIN, open_tab, press, set_text, start, wait_plan, wait_state

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror='window.hacked=1'>"
DIR, PROMPT = "data.concepts.0.instance_dir", "data.concepts.0.instance_prompt"


def value(page, path: str) -> str:
    return page.locator(f"{TRAIN}_{path.replace('.', '_')}").locator("textarea, input").first.input_value()


def wait_value(page, path: str, text: str) -> None:
    box = page.locator(f"{TRAIN}_{path.replace('.', '_')}").locator("textarea, input").first
    page.wait_for_function("([box, text]) => box.value === text", arg=[box.element_handle(), text])


def test_the_settings_of_the_last_start_come_back_and_can_be_forgotten(site, open_page):
    first = open_page(site.url)
    assert "40 steps" in wait_plan(first)
    assert not first.locator(f"{TRAIN}_forget").is_visible()
    set_text(first, "train.length", "12")
    first.locator(".sdtrain-plan", has_text="12 steps").wait_for()
    start(first)
    wait_state(first, "finished")
    second = open_page(site.url)
    press(second, "again")
    assert "12 steps" in wait_plan(second)
    assert value(second, "train.length") == "12"
    press(second, "forget")
    second.locator(".sdtrain-plan", has_text="40 steps").wait_for()
    second.locator(f"{TRAIN}_forget").wait_for(state="hidden")
    assert site.engine.began.is_set()


def test_a_run_that_was_measured_tells_how_long_the_next_will_take(site, open_page):
    page = open_page(site.url)
    assert "time known after the first steps" in wait_plan(page)
    start(page)
    wait_state(page, "finished")
    press(page, "again")
    page.locator(".sdtrain-plan", has_text="about").wait_for()
    set_text(page, "train.length", "4000")
    page.locator(".sdtrain-plan", has_text=re.compile(r"about \d+ min")).wait_for()


def test_a_second_subject_is_learnt_too(site, open_page, tmp_path):
    other = draw_subject(tmp_path / "other", 3)
    page = open_page(site.url)
    wait_plan(page)
    press(page, "add_concept")
    page.locator(f"{TRAIN}_concept label", has_text="2: subject-2").wait_for()
    assert "no folder" in wait_plan(page, ready=False)
    page.locator(f"{TRAIN}_data_concepts_0_instance_dir .sdtrain-mistake").wait_for()
    set_text(page, DIR, str(other))
    page.locator(".sdtrain-plan", has_text="11 pictures").wait_for()
    set_text(page, PROMPT, "a photo of zwx cup")
    page.locator(f"{TRAIN}_concept label", has_text="1: sks-cup").click()
    wait_value(page, PROMPT, "a photo of sks cup")
    set_text(page, DIR, "/nowhere")
    page.locator(f"{TRAIN}_concept label", has_text="2: subject-2").click()
    page.locator(".sdtrain-plan", has_text="concept 1: there is no folder").wait_for()
    page.locator(f"{TRAIN}_concept label", has_text="1: sks-cup").click()
    wait_value(page, DIR, "/nowhere")
    set_text(page, DIR, site.engine.subject)
    wait_plan(page)
    start(page)
    wait_state(page, "finished")
    config = yaml.safe_load(next(site.runs.glob("*/config.yaml")).read_text("utf-8"))
    learnt = [(concept["name"], concept["instance_prompt"]) for concept in config["data"]["concepts"]]
    assert learnt == [("sks-cup", "a photo of sks cup"), ("subject-2", "a photo of zwx cup")]


def test_what_is_typed_while_other_values_are_on_their_way_stands(site, open_page, tmp_path, monkeypatch):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "add_concept")
    assert "no folder" in wait_plan(page, ready=False)
    set_text(page, DIR, str(draw_subject(tmp_path / "other", 3)))
    page.locator(".sdtrain-plan", has_text="11 pictures").wait_for()
    answers, outlook = Event(), TrainService.outlook
    monkeypatch.setattr(TrainService, "outlook", lambda *args: answers.wait(60) and outlook(*args))
    page.locator(f"{TRAIN}_concept label", has_text="1: sks-cup").click()
    page.fill(f"{TRAIN}_data_concepts_0_instance_prompt textarea", "a photo of zwx cup")
    set_text(page, "train.length", "12")
    page.locator(f"{TRAIN}_method_kind label", has_text="lora").click()
    answers.set()
    wait_value(page, DIR, site.engine.subject)  # which came with the concept
    wait_value(page, PROMPT, "a photo of zwx cup")
    page.locator(".sdtrain-plan", has_text="12 steps").wait_for()
    assert value(page, "train.length") == "12"
    assert page.locator(f"{TRAIN}_method_kind input:checked").get_attribute("value") == "lora"


def test_choices_and_words_follow_in_order_however_long_an_answer_takes(site, open_page, tmp_path, monkeypatch):
    """Else the second choice is lost, and what is typed after it goes to the subject that was shown before."""
    other, page = str(draw_subject(tmp_path / "other", 3)), open_page(site.url)
    wait_plan(page)
    press(page, "add_concept")
    assert "no folder" in wait_plan(page, ready=False)
    set_text(page, DIR, other)
    page.locator(".sdtrain-plan", has_text="11 pictures").wait_for()
    page.locator(f"{TRAIN}_concept label", has_text="1: sks-cup").click()
    wait_value(page, DIR, site.engine.subject)
    wait_plan(page)
    answers, outlook = Event(), TrainService.outlook
    monkeypatch.setattr(TrainService, "outlook", lambda *args: answers.wait(60) and outlook(*args))
    page.locator(f"{TRAIN}_concept label", has_text="2: subject-2").click()
    set_text(page, PROMPT, "a photo of zwx cup")
    page.locator(f"{TRAIN}_concept label", has_text="1: sks-cup").click()
    set_text(page, PROMPT, "a photo of ohwx cup")
    press(page, "start")
    answers.set()
    wait_state(page, "finished")
    assert learnt(site) == [(site.engine.subject, "a photo of ohwx cup"), (other, "a photo of zwx cup")]


def test_the_start_waits_for_the_prompts_of_the_words_just_typed(site, open_page, monkeypatch):
    """Over a slow line they come after the click: else the run learns the words that stood there before."""
    page = open_page(site.url)
    wait_plan(page)
    asked, answers = hold_words(monkeypatch)
    set_text(page, "identifier", "zwx")
    assert asked.wait(60)
    press(page, "start")
    Timer(2, answers.set).start()
    wait_state(page, "finished")
    assert learnt(site) == [(site.engine.subject, "a photo of zwx cup")]


def test_another_subject_is_shown_when_the_prompts_of_the_first_are_there(site, open_page, tmp_path, monkeypatch):
    other, page = str(draw_subject(tmp_path / "other", 3)), open_page(site.url)
    wait_plan(page)
    asked, answers = hold_words(monkeypatch)
    set_text(page, "identifier", "zwx")
    assert asked.wait(60)
    press(page, "add_concept")
    Timer(2, answers.set).start()
    assert "no folder" in wait_plan(page, ready=False)
    set_text(page, DIR, other)
    page.locator(".sdtrain-plan", has_text="11 pictures").wait_for()
    start(page)
    wait_state(page, "finished")
    assert learnt(site) == [(site.engine.subject, "a photo of zwx cup"), (other, None)]


def hold_words(monkeypatch) -> tuple[Event, Event]:
    """Answers to the words wait: an event when they are asked, and one that lets them come."""
    asked, answers, words = Event(), Event(), TrainHandlers.words
    monkeypatch.setattr(TrainHandlers, "words", lambda *args: asked.set() or (answers.wait(60) and words(*args)))
    return asked, answers


def learnt(site) -> list[tuple[str, str | None]]:
    """Folder and prompt of each subject of the one run."""
    config = yaml.safe_load(next(site.runs.glob("*/config.yaml")).read_text("utf-8"))
    return [(concept["instance_dir"], concept.get("instance_prompt")) for concept in config["data"]["concepts"]]


def test_a_removed_subject_is_gone(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "add_concept")
    wait_plan(page, ready=False)
    press(page, "remove_concept")
    assert "8 pictures" in wait_plan(page)
    page.locator(f"{TRAIN}_concept").wait_for(state="hidden")


def test_names_of_every_kind_are_text(site, open_page, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{EVIL}.safetensors").write_bytes(b"")
    page = open_page(site.url)
    wait_plan(page)
    page.click(f"{TRAIN}_model_checkpoint input")
    page.locator(f"{TRAIN}_model_checkpoint li", has_text="onerror").wait_for()
    page.keyboard.press("Escape")
    page.click(f"{TRAIN}_more .label-wrap")
    set_text(page, "data.concepts.0.name", EVIL)
    for name in ("identifier", "class_word"):
        page.fill(f"{TRAIN}_{name} textarea", EVIL)
        page.locator(f"{TRAIN}_{name} textarea").blur()
    page.locator(f"{TRAIN}_reading", has_text="onerror").first.wait_for()
    press(page, "add_concept")
    page.locator(f"{TRAIN}_concept label", has_text="onerror").wait_for()
    press(page, "remove_concept")
    page.click(f"{TRAIN}_keeping .label-wrap")
    page.fill(f"{TRAIN}_preset_name textarea", EVIL)
    press(page, "save_preset")
    page.locator(f"{TRAIN}_kept", has_text="Saved as preset").first.wait_for()
    wait_plan(page)
    start(page)
    wait_state(page, "finished")
    open_tab(page, "Runs")
    page.locator("#sdtrain_runs_table", has_text="done").first.wait_for()
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
