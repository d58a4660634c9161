"""Merging two checkpoints through the page, in a real browser."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.api.training import TrainingEngine
from lib_sdtrain.events import Phase
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.ui.merge.handlers import MergeHandlers
from lib_sdtrain.ui.standalone import serve
from tests.api.merge_site import drawable_site
from tests.journeys.steps import LONG, open_tab
from tests.tiny import write_tiny

pytestmark = pytest.mark.browser

MERGE = "#sdtrain_merge"
IN04 = "model.diffusion_model.input_blocks.4.1.proj_in.weight"
OUT04 = "model.diffusion_model.output_blocks.4.1.proj_in.weight"


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Any]:
    """The tab standalone with two small checkpoints of SD1 and one of SDXL."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    drawable_site(tmp_path)
    write_tiny(tmp_path / "models" / "xl.safetensors", "sdxl")
    server = serve(TrainingEngine(), tmp_path)
    yield server
    server.services.runner.stop("now")
    server.close()


@pytest.fixture
def page(served, open_page) -> Any:
    """The Merge sub-tab, its models chosen."""
    page = open_page(served.url)
    open_tab(page, "Merge")
    page.wait_for_selector(f"{MERGE}_plan .sdtrain-plan")
    choose(page, "a", "one.safetensors")
    choose(page, "b", "two.safetensors")
    wait_plan(page)
    return page


def choose(page: Any, name: str, text: str) -> None:
    page.click(f"{MERGE}_{name} input")
    page.locator(f"{MERGE}_{name} ul li", has_text=text).first.click()


def wait_plan(page: Any, ready: bool = True) -> str:
    plan = page.locator(f'{MERGE}_plan .sdtrain-plan[data-ready="{str(ready).lower()}"]')
    plan.wait_for(timeout=LONG)
    return plan.inner_text()


def weights(page: Any, name: str = "alpha") -> list[float]:
    return [float(part) for part in page.locator(f"{MERGE}_weights_{name} textarea").input_value().split(",")]


def set_slider(page: Any, block: str, value: float) -> None:
    page.locator(f"#sdm_{block}").fill(str(value))


def wait_weight(page: Any, index: int, value: float) -> None:
    page.wait_for_function(
        "([id, index, value]) => +document.querySelector(id).value.split(',')[index] === value",
        arg=[f"{MERGE}_weights_alpha textarea", index, value], timeout=LONG,
    )


def wait_state(page: Any, state: str) -> None:
    page.wait_for_selector(f'{MERGE}[data-state="{state}"]', timeout=LONG)


def read(path: Path, key: str) -> Any:
    with open_tensors(path) as tensors:
        return tensors.tensor(key).clone()


def test_merge_waits_for_what_was_pressed_before_it(served, page, tmp_path, monkeypatch):
    """Over a slow line the answer comes after the click: else what is merged is not what the form shows."""
    page.locator(f"{MERGE}_weights_alpha textarea").fill(",".join(["0"] * 26))
    page.wait_for_function("() => document.querySelector('#sdm_IN04').value === '0'", timeout=LONG)
    asked, answers, fitted = Event(), Event(), MergeHandlers.fitted
    monkeypatch.setattr(MergeHandlers, "fitted", lambda *args: asked.set() or (answers.wait(60) and fitted(*args)))
    page.click(f"{MERGE}_swap")
    assert asked.wait(30)
    Timer(2, answers.set).start()
    page.click(f"{MERGE}_start")
    wait_state(page, "finished")
    merged = Path(served.services.merge.history.entries()[0]["out"])
    assert (read(merged, IN04) == read(tmp_path / "models" / "two.safetensors", IN04)).all()


def test_one_slider_moved_and_merged(served, page, tmp_path):
    models = tmp_path / "models"
    page.locator(f"{MERGE}_weights_alpha textarea").fill(",".join(["0"] * 26))
    page.wait_for_function("() => document.querySelector('#sdm_IN04').value === '0'", timeout=LONG)
    set_slider(page, "IN04", 1)
    wait_weight(page, 5, 1)
    assert sum(weights(page)) == 1
    page.wait_for_timeout(700)  # the plan follows when nothing has moved for a moment
    page.locator(f"{MERGE}_name input").fill("mixed")
    page.locator(f"{MERGE}_name input").blur()
    page.locator(f"{MERGE}_plan .sdtrain-plan", has_text="mixed.safetensors").wait_for(timeout=LONG)
    page.click(f"{MERGE}_start")
    wait_state(page, "finished")
    result = page.locator('#sdtrain_merge_run [data-part="result"]')
    digest = served.services.merge.history.entries()[0]["sha256"]
    assert digest[:10] in result.inner_text()
    merged = tmp_path / "outputs" / "merges" / "mixed.safetensors"
    assert (read(merged, IN04) == read(models / "two.safetensors", IN04)).all()
    assert (read(merged, OUT04) == read(models / "one.safetensors", OUT04)).all()
    page.click(f"{MERGE}_as_a")
    page.wait_for_function("() => document.querySelector('#sdtrain_merge_a input').value.includes('mixed')")
    page.locator(f"{MERGE}_earlier .label-wrap").click()
    page.click(f"{MERGE}_again input")
    page.locator(f"{MERGE}_again ul li", has_text=digest[:10]).wait_for(timeout=LONG)


def test_text_and_sliders_follow_each_other(page):
    page.locator(f"{MERGE}_weights_alpha textarea").fill(",".join(str(n / 25) for n in range(26)))
    page.wait_for_function("() => document.querySelector('#sdm_OUT11').value === '1'", timeout=LONG)
    number = page.locator(".sdm-row[data-block=M00] input[type=number]")
    assert number.input_value() == "0.52"
    number.fill("1.5")
    wait_weight(page, 13, 1.5)
    assert page.locator("#sdm_M00").get_attribute("max") == "2"
    page.locator("#sdm_IN00").focus()
    page.keyboard.press("ArrowRight")
    wait_weight(page, 1, 0.05)


def test_wrong_numbers_are_told_beside_the_text(page):
    page.locator(f"{MERGE}_weights_alpha textarea").fill(",".join(["0.5"] * 25))
    error = page.locator(".sdm-error")
    error.filter(has_text="25 numbers, but model A has 26 weights").wait_for(timeout=LONG)
    page.locator(f"{MERGE}_weights_alpha textarea").blur()
    page.locator(f"{MERGE}_weights_alpha textarea").fill("0.5,half")
    error.filter(has_text='"half": not a number').wait_for(timeout=LONG)
    page.click(f"{MERGE}_start")
    mistake = page.locator(f"{MERGE}_weights_alpha .sdtrain-mistake", has_text="not a finite number")
    mistake.wait_for(timeout=LONG)
    choose(page, "preset", "high-res_replace")
    page.wait_for_function("() => document.querySelector('.sdm-error').textContent === ''", timeout=LONG)
    assert weights(page)[:4] == [0, 0, 1, 1]


def test_the_last_of_several_changes_is_planned_however_long_a_plan_takes(page, monkeypatch):
    last, outlook = ",".join(["0.25"] * 26), MergeService.outlook
    answers, asked, asked_last = Event(), Event(), Event()

    def held(service, form):
        (asked_last if form["weights_alpha"] == last else asked).set()
        return answers.wait(60) and outlook(service, form)

    monkeypatch.setattr(MergeService, "outlook", held)
    page.locator(f"{MERGE}_weights_alpha textarea").fill("0.5,half")
    assert asked.wait(30)
    page.locator(f"{MERGE}_weights_alpha textarea").fill(last)
    page.wait_for_function("() => document.querySelector('.sdm-error').textContent === ''", timeout=LONG)
    page.wait_for_timeout(1000)  # it is asked for again when nothing has moved for half a second
    answers.set()
    assert asked_last.wait(30)
    page.locator(f"{MERGE}_weights_alpha .sdtrain-mistake").wait_for(state="detached", timeout=LONG)


def test_tools_change_a_range_and_undo(page):
    page.locator('.sdm [data-part="over"]').select_option("in")
    page.locator('.sdm [data-part="amount"]').fill("0.9")
    page.locator('.sdm [data-part="apply"]').click()
    assert weights(page) == [0.5] + [0.9] * 12 + [0.5] * 13
    page.locator('.sdm [data-part="tool"]').select_option("mirror_in")
    page.locator('.sdm [data-part="over"]').select_option("all")
    page.locator('.sdm [data-part="apply"]').click()
    assert weights(page) == [0.5] + [0.9] * 12 + [0.5] + [0.9] * 12
    page.locator('.sdm [data-part="undo"]').click()
    page.locator('.sdm [data-part="undo"]').click()
    assert weights(page) == [0.5] * 26


def test_weights_are_drawn_on_the_curve(page):
    area = page.locator(".sdm-curve").bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.5, area["y"] + 14)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + 14, steps=6)
    page.mouse.up()
    assert max(weights(page)) > 0.95
    assert weights(page)[0] == 0.5


def test_a_method_shows_its_own_controls_and_its_second_weights(page):
    assert not page.locator(f"{MERGE}_weights_beta").is_visible()
    choose(page, "method", "Sum twice")
    page.locator(f"{MERGE}_weights_beta").wait_for(timeout=LONG)
    assert page.locator(f"{MERGE}_c").is_visible()
    page.locator('.sdm [data-set="beta"]').click(timeout=LONG)
    page.wait_for_function("() => document.querySelector('#sdm_M00').value === '0.25'", timeout=LONG)
    set_slider(page, "M00", 1)
    page.wait_for_function(
        "() => document.querySelector('#sdtrain_merge_weights_beta textarea').value.split(',')[13] === '1'",
        timeout=LONG,
    )
    assert weights(page)[13] == 0.5
    choose(page, "method", "Extract")
    page.locator(f"{MERGE}_gamma").wait_for(timeout=LONG)


def test_sdxl_has_twenty_sliders(page):
    choose(page, "a", "xl.safetensors")
    page.locator(".sdm-row[data-block=OUT09]").wait_for(state="detached", timeout=LONG)
    assert page.locator(".sdm-row").count() == 20
    assert len(weights(page)) == 20
    assert "xl.safetensors is sdxl" in wait_plan(page, ready=False)


def test_stopping_leaves_nothing_behind(served, page, tmp_path, monkeypatch):
    from lib_sdtrain.merge import engine

    real = engine.streamed

    def slow(computer, pieces, count):
        import time

        for piece in real(computer, pieces, count):
            time.sleep(0.05)
            yield piece

    monkeypatch.setattr(engine, "streamed", slow)
    page.click(f"{MERGE}_start")
    wait_state(page, "running")
    page.locator('#sdtrain_merge_run [data-part="status"]', has_text="MB").wait_for(timeout=LONG)
    page.click(f"{MERGE}_stop")
    wait_state(page, "stopped")
    assert "nothing was written" in page.locator('#sdtrain_merge_run [data-part="status"]').inner_text()
    assert list((tmp_path / "outputs" / "merges").iterdir()) == []
    page.click(f"{MERGE}_close")
    assert page.locator(f"{MERGE}_start").is_visible()


def test_the_difference_stands_at_the_sliders(page):
    page.click(f"{MERGE}_compare")
    page.locator(".sdm-difference").wait_for(timeout=LONG)
    bar = ".sdm-row[data-block=IN04] .sdm-far"
    page.wait_for_function(f"() => document.querySelector('{bar}').offsetWidth > 0", timeout=LONG)
    page.locator(".sdm-difference summary").click()
    assert page.locator(".sdm-heat td").count() > 26


def test_pictures_of_both_models_from_the_same_seeds(page):
    page.locator(f"{MERGE}_seeing .label-wrap").click()
    page.locator(f"{MERGE}_pictures_prompts textarea").fill("a red cat\na blue dog")
    for name, value in (("steps", "1"), ("size", "64")):
        page.locator(f"{MERGE}_pictures_{name} input").fill(value)
    page.click(f"{MERGE}_draw")
    page.wait_for_function("() => document.querySelectorAll('.sdm-pictures img').length === 4", timeout=LONG)
    image = page.locator(".sdm-pictures img").last
    assert image.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 64


def test_another_job_has_the_machine(served, page):
    import threading

    let_go = threading.Event()

    def work(token):
        yield Phase(name="working", done=0, total=2, unit="steps")
        let_go.wait(60)

    job = served.services.runner.start("train", "a training", work)
    page.locator("#sdtrain_merge_busy", has_text="a training has the machine").wait_for(timeout=LONG)
    let_go.set()
    assert job.done.wait(60)
