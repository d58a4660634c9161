"""The Sample sub-tab in a real browser, on a tiny random model: draw, compare, grid, wrong words, stop."""
from __future__ import annotations

from threading import Event, Timer

import pytest
import torch

from lib_sdtrain.api.sampling import SampleService
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.sample.generate import generate
from lib_sdtrain.settings.sample import SampleRequest
from tests.journeys.steps import LONG, open_tab

pytestmark = pytest.mark.browser

SAMPLE = "#sdtrain_sample"
RESULT = "#sdtrain_sample_result"
MESSAGE = f":is({SAMPLE}_message.prose, {SAMPLE}_message .prose)"  # in Gradio 3, and in Gradio 4
INFOTEXT = ("a cat\nNegative prompt: dog\n"
            "Steps: 2, Sampler: Euler, Schedule type: Karras, CFG scale: 5, Seed: 42, Size: 64x64")


def box(page, name):
    return page.locator(f"{SAMPLE}_{name}").locator("textarea, input").first


def choose(page, name, title):
    page.locator(f"{SAMPLE}_{name} input").first.click()
    page.locator(f"{SAMPLE}_{name} ul li", has_text=title).first.click()


def plan(page, words):
    page.locator(f"{SAMPLE}_plan .sdtrain-plan", has_text=words).wait_for(timeout=LONG)


def draw(page):
    before = page.evaluate("() => window.sdtrain.jobId()")
    page.click(f"{SAMPLE}_start")
    page.wait_for_function(
        "before => window.sdtrain.job && window.sdtrain.job.id !== before"
        " && (window.sdtrain.job.end !== null || window.sdtrain.job.problems.length > 0)",
        arg=before, timeout=LONG,
    )
    page.locator(f"{RESULT} [data-part=status]", has_text="done").wait_for(timeout=LONG)


def loaded(page, selector):
    return page.locator(selector).first.evaluate("image => image.decode().then(() => image.naturalWidth)")


@pytest.fixture(scope="session")
def drawn_before(tiny_checkpoint):
    """The libraries are loaded: a first picture waits for them, and that is not what is tested here."""
    pytest.importorskip("diffusers")
    model = load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32)
    list(generate(model, SampleRequest(steps=1, width=64, height=64)))


@pytest.fixture
def page(site, open_page, tiny_checkpoint, drawn_before):
    models = site.folder / "models"
    models.mkdir()
    for name in ("one", "two"):
        (models / f"{name}.safetensors").symlink_to(tiny_checkpoint)
        (models / f"{name}.yaml").symlink_to(tiny_checkpoint.with_suffix(".yaml"))
    opened = open_page(site.url)
    open_tab(opened, "Sample")
    plan(opened, "picture")
    box(opened, "infotext").fill(INFOTEXT)
    opened.press(f"{SAMPLE}_infotext textarea", "Tab")
    opened.locator(MESSAGE, has_text="everything in it").wait_for(timeout=LONG)
    choose(opened, "checkpoint", "one.safetensors")
    plan(opened, "64 x 64")
    return opened


def test_an_infotext_becomes_a_picture_with_the_same_words(page):
    assert box(page, "negative_prompt").input_value() == "dog"
    assert box(page, "steps").input_value() == "2"
    draw(page)
    assert loaded(page, f"{RESULT} [data-part=viewer] img") == 64
    words = page.locator(f"{RESULT} [data-part=words]").inner_text()
    assert "Sampler: Euler, Schedule type: Karras" in words
    assert "Seed: 42" in words
    page.wait_for_selector(f"{RESULT} [data-part=recent] img", timeout=LONG)
    box(page, "prompt").fill("something else")
    page.click(f"{RESULT} [data-do=use]")
    page.wait_for_function("() => document.querySelector('#sdtrain_sample_prompt textarea').value === 'a cat'")


def test_two_checkpoints_are_compared(page):
    page.click(f"{SAMPLE}_comparing .label-wrap")
    choose(page, "compare", "two.safetensors")
    plan(page, "comparison")
    draw(page)
    assert page.locator(f"{RESULT} [data-part=viewer] figcaption").all_inner_texts() == [
        "one.safetensors", "two.safetensors",
    ]
    page.click(f"{RESULT} [data-mode=swipe]")
    slider = page.locator(f"{RESULT} .sds-swipe")
    slider.focus()
    slider.press("End")
    assert "100%" in page.locator(f"{RESULT} .sds-over img").last.get_attribute("style")
    page.click(f"{RESULT} [data-mode=difference]")
    assert page.locator(f"{RESULT} .sds-over img").count() == 2


def test_a_grid_is_drawn_and_its_mistakes_stand_at_the_values(page):
    page.click(f"{SAMPLE}_grid .label-wrap")
    choose(page, "x", "Sampler")
    box(page, "x_values").fill("Euler, Heunn")
    plan(page, "Heunn")
    assert "Heunn" in page.locator(f"{SAMPLE}_x_values .sdtrain-mistake").inner_text()
    box(page, "x_values").fill("Euler, Heun")
    plan(page, "grid of 2 pictures")
    assert page.locator(".sdtrain-mistake:visible").count() == 0
    draw(page)
    assert loaded(page, f"{RESULT} [data-part=viewer] img") == 128
    assert page.locator(f"{RESULT} [data-part=strip] img").count() == 3
    assert "Grid X: Sampler" in page.locator(f"{RESULT} [data-part=words]").inner_text()


def test_a_wrong_infotext_says_what_is_wrong(page):
    box(page, "infotext").fill("a\nSteps: 5, Sampler: <b>Foo</b>, CFG scale: 7")
    page.press(f"{SAMPLE}_infotext textarea", "Tab")
    page.locator(MESSAGE, has_text="no sampler is called '<b>Foo</b>'").wait_for(timeout=LONG)
    assert box(page, "prompt").input_value() == "a cat"
    box(page, "width").fill("70")
    plan(page, "no multiple of 8")
    assert "no multiple of 8" in page.locator(f"{SAMPLE}_width .sdtrain-mistake").inner_text()


def test_the_last_of_several_changes_is_planned_however_long_a_plan_takes(page, monkeypatch):
    answers, asked, outlook = Event(), Event(), SampleService.outlook

    def held(service, form):
        asked.set()
        return answers.wait(60) and outlook(service, form)

    monkeypatch.setattr(SampleService, "outlook", held)
    box(page, "width").fill("70")
    assert asked.wait(30)
    box(page, "width").fill("72")
    page.wait_for_timeout(1000)  # it is asked for again when typing pauses
    answers.set()
    plan(page, "72 x 64")


def test_generate_waits_for_what_an_infotext_puts_into_the_boxes(page, site, monkeypatch):
    """Over a slow line it comes after the click: else the picture is that of the settings before."""
    asked, answers, read = Event(), Event(), SampleService.read
    monkeypatch.setattr(SampleService, "read", lambda *args: asked.set() or (answers.wait(60) and read(*args)))
    box(page, "infotext").fill(INFOTEXT.replace("Seed: 42", "Seed: 43"))
    page.press(f"{SAMPLE}_infotext textarea", "Tab")
    assert asked.wait(30)
    Timer(2, answers.set).start()
    draw(page)
    assert "Seed: 43" in page.locator(f"{RESULT} [data-part=words]").inner_text()


def test_stopping_answers_at_once_and_the_next_picture_comes(page):
    box(page, "steps").fill("900")
    plan(page, "900 steps")
    page.click(f"{SAMPLE}_start")
    page.locator(f"{RESULT} [data-part=status]", has_text="of 900").wait_for(timeout=LONG)
    page.click(f"{SAMPLE}_stop")
    page.wait_for_selector(f'{SAMPLE}[data-state="stopped"]', state="attached", timeout=LONG)
    assert page.locator(f"{SAMPLE}_start").is_visible()
    box(page, "steps").fill("2")
    plan(page, "2 steps")
    draw(page)
