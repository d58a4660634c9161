"""The tab without the WebUI, in a real browser."""
from __future__ import annotations

import json
import time

import pytest

from tests.journeys.steps import LONG, curve_points, open_tab, press, set_text, status, wait_plan, wait_state, wait_step

pytestmark = pytest.mark.browser


def test_the_first_click_trains_the_toybox_subject(site, open_page):
    page = open_page(site.url)
    plan = wait_plan(page)
    assert "8 pictures" in plan
    assert "40 steps" in plan
    assert page.locator("#sdtrain_train_thumbnails img").count() == 8
    press(page, "start")
    wait_state(page, "running")
    assert not page.locator("#sdtrain_train_form").is_visible()
    wait_state(page, "finished")
    assert status(page) == "done"
    assert curve_points(page) == 40
    assert "sks-cup.safetensors" in page.locator('#sdtrain_run [data-part="result"]').inner_text()
    assert page.locator('#sdtrain_run [data-part="preview-step"]').inner_text() == "40"
    image = page.locator('#sdtrain_run [data-part="preview-row"] img')
    image.wait_for()
    assert image.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 128


def test_previews_of_earlier_steps_can_be_looked_at(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    slider = page.locator('#sdtrain_run [data-part="preview-slider"]')
    slider.focus()
    slider.press("Home")
    assert page.locator('#sdtrain_run [data-part="preview-step"]').inner_text() == "0"


def test_stop_and_save_then_go_on_to_the_end(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_step(page, 5)
    press(page, "stop_save")
    wait_state(page, "stopped")
    stopped = page.evaluate("() => window.sdtrain.job.step")
    assert 5 <= stopped < 40
    assert "saved" in status(page)
    press(page, "resume")
    wait_state(page, "finished")
    assert page.evaluate("() => window.sdtrain.job.points.map(point => point[0])") == list(range(1, 41))
    assert len(list(site.runs.iterdir())) == 1


def test_the_stop_buttons_answer_at_once(site, open_page):
    site.engine.pause = 1.5
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "running")
    press(page, "stop_now")
    assert "stopping now" in status(page)
    wait_state(page, "stopped")
    assert "not saved" in status(page)
    assert not page.locator("#sdtrain_train_resume").is_visible()


def test_save_and_go_on_writes_a_checkpoint_without_stopping(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_step(page, 3)
    press(page, "stop_go_on")
    wait_state(page, "finished")
    assert len(list(site.runs.glob("*/checkpoints/model-*.safetensors"))) == 1


def test_a_wrong_folder_is_said_beside_its_control_and_nothing_starts(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    set_text(page, "data.concepts.0.instance_dir", "/nowhere/at/all")
    assert "no folder" in wait_plan(page, ready=False)
    mistake = page.locator("#sdtrain_train_data_concepts_0_instance_dir .sdtrain-mistake")
    mistake.wait_for()
    assert "no folder" in mistake.inner_text()
    press(page, "start")
    page.wait_for_timeout(800)
    assert site.services.runner.job is None
    set_text(page, "data.concepts.0.instance_dir", site.engine.subject)
    wait_plan(page)
    assert mistake.count() == 0


def test_the_plan_follows_while_typing(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    page.locator("#sdtrain_train_train_length textarea").press_sequentially("0")
    page.locator(".sdtrain-plan", has_text="400 steps").wait_for()


def test_what_makes_a_run_fit_is_one_click_in_the_plan(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    page.locator("#sdtrain_train_form .sdtrain-plan summary", has_text="memory").click()
    assert "0.3 GB weights" in page.locator("#sdtrain_train_form .sdtrain-plan").inner_text()
    page.locator("#sdtrain_train_form .sdtrain-plan button[data-fit='8']").click()
    page.wait_for_selector("#sdtrain_train_message p >> text=3.5 GB instead of 9.9 GB", timeout=LONG)
    page.wait_for_selector("#sdtrain_train_train_gradient_checkpointing input:checked", state="attached", timeout=LONG)
    assert "train.gradient_checkpointing" in page.locator("#sdtrain_train_form .sdtrain-plan").inner_html()


@pytest.mark.fault("the run goes on; the page shows it as a whole")
def test_a_closed_browser_finds_the_run_again(site, open_page):
    site.engine.pause = 0.15
    first = open_page(site.url)
    wait_plan(first)
    press(first, "start")
    wait_step(first, 5)
    first.context.close()
    second = open_page(site.url)
    wait_state(second, "running")
    assert second.evaluate("() => window.sdtrain.job.points[0][0]") == 1
    wait_state(second, "finished")
    assert curve_points(second) == 40


def test_a_reloaded_page_finds_the_run_again(site, open_page):
    site.engine.pause = 0.15
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_step(page, 3)
    page.reload()
    wait_state(page, "running")
    wait_state(page, "finished")
    assert curve_points(page) == 40


def test_two_browsers_see_the_same_run_and_either_can_stop_it(site, open_page):
    site.engine.pause = 0.2
    first, second = open_page(site.url), open_page(site.url)
    wait_plan(first)
    wait_plan(second)
    press(first, "start")
    wait_state(second, "running")
    press(second, "stop_save")
    wait_state(first, "stopped")
    wait_state(second, "stopped")
    assert first.evaluate("() => window.sdtrain.jobId()") == second.evaluate("() => window.sdtrain.jobId()")


def test_two_starts_at_once_are_one_run(site, open_page):
    site.engine.pause = 0.1
    first, second = open_page(site.url), open_page(site.url)
    wait_plan(first)
    wait_plan(second)
    for page in (first, second):
        page.evaluate("() => document.querySelector('#sdtrain_train_start').click()")
    wait_state(first, "running")
    wait_state(second, "running")
    assert len(list(site.runs.iterdir())) == 1


def test_what_the_user_changed_reaches_the_run(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    set_text(page, "train.length", "12")
    set_text(page, "save.name", "my dog")
    page.locator(".sdtrain-plan", has_text="12 steps").wait_for()
    press(page, "start")
    wait_state(page, "finished")
    assert curve_points(page) == 12
    assert [file.name for file in site.runs.glob("*/checkpoints/*")] == ["my-dog.safetensors"]


def test_the_words_make_the_prompts_and_clips_reading_is_shown(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    assert page.locator("#sdtrain_train_identifier textarea").input_value() == "sks"
    for name, word in (("identifier", "zwx"), ("class_word", "teapot")):
        box = page.locator(f"#sdtrain_train_{name} textarea")
        box.fill(word)
        box.blur()
    prompt = page.locator("#sdtrain_train_data_concepts_0_instance_prompt textarea")
    page.wait_for_function("box => box.value === 'a photo of zwx teapot'", arg=prompt.element_handle())
    page.locator("#sdtrain_train_reading", has_text="teapot").first.wait_for()


def test_dropped_pictures_become_the_folder(site, open_page, tmp_path):
    page = open_page(site.url)
    wait_plan(page)
    files = sorted((tmp_path / "subject").iterdir())[:6]
    page.set_input_files("#sdtrain_train_uploads input[type=file]", files)
    page.locator(".sdtrain-plan", has_text="3 pictures").wait_for()
    assert page.locator("#sdtrain_train_thumbnails img").count() == 3
    kept = page.locator("#sdtrain_train_data_concepts_0_instance_dir textarea").input_value()
    assert kept.startswith(str(tmp_path / "outputs" / "pictures"))


def test_a_preset_of_ones_own_comes_back(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    set_text(page, "train.length", "77")
    page.click("#sdtrain_train_keeping .label-wrap")
    page.fill("#sdtrain_train_preset_name textarea", "quick one")
    press(page, "save_preset")
    page.locator("#sdtrain_train_kept", has_text="quick-one").first.wait_for()
    again = open_page(site.url)
    wait_plan(again)
    again.click("#sdtrain_train_preset input")
    again.click("text=quick-one")
    again.locator(".sdtrain-plan", has_text="77 steps").wait_for()


@pytest.mark.fault("HTML in names and captions is shown as text")
def test_text_of_users_is_text(site, open_page, tmp_path):
    evil = "<img src=x onerror='window.hacked=1'>"
    for file in (tmp_path / "subject").glob("*.txt"):
        file.write_text(evil, encoding="utf-8")
    site.engine.pause = 0.01
    page = open_page(site.url)
    wait_plan(page)
    set_text(page, "save.name", evil)
    set_text(page, "preview.prompts", evil)
    set_text(page, "data.concepts.0.instance_prompt", evil)
    page.locator(".sdtrain-plan", has_text="onerror").wait_for()
    page.locator("#sdtrain_train_plan details").evaluate_all("all => all.forEach(one => one.open = true)")
    press(page, "start")
    wait_state(page, "finished")
    assert page.evaluate("() => window.hacked") is None


def test_a_crash_in_the_engine_is_told_and_the_next_run_works(site, open_page):
    def crash(step: int) -> None:
        if step == 3:
            raise RuntimeError("out of memory <b>here</b>")

    site.engine.at_step = crash
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "failed")
    assert "out of memory <b>here</b>" in page.locator('#sdtrain_run [data-part="problems"]').inner_text()
    site.engine.at_step = lambda step: None
    press(page, "again")
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")


def test_a_loss_that_is_no_number_does_not_break_the_page(site, open_page):
    site.engine.loss_at = lambda step: float("nan") if step == 2 else 0.1
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    assert curve_points(page) == 40


@pytest.mark.parametrize("loss", [0.0, 1e-12, 0.07697069644927979, 1e9])
def test_a_loss_that_stays_the_same_is_drawn(site, open_page, loss):
    site.engine.loss_at = lambda step: loss
    site.engine.smoothed_at = lambda step: loss * (1 + 2e-16)
    page = open_page(site.url)
    wait_plan(page)
    set_text(page, "train.length", "3")
    page.locator(".sdtrain-plan", has_text="3 steps").wait_for()
    press(page, "start")
    wait_state(page, "finished")
    assert curve_points(page) == 3
    assert 1 <= page.locator("#sdtrain_run .sdtrain-plot .grid").count() <= 12


def test_runs_are_listed_and_a_stopped_one_can_be_lengthened(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_step(page, 3)
    press(page, "stop_save")
    wait_state(page, "stopped")
    open_tab(page, "Runs")
    page.locator("#sdtrain_runs_table tbody tr", has_text="stopped").first.click()
    page.locator("#sdtrain_runs_length").press("4")
    page.evaluate("() => { window.sdtrain.runs.answered(); return window.sdtrain.runs.refreshDetail(); }")
    page.keyboard.press("5")  # who types is not interrupted when the list has news
    page.click("#sdtrain_runs_resume")
    open_tab(page, "Train")
    wait_state(page, "finished")
    events = [json.loads(line) for line in next(site.runs.glob("*/events.jsonl")).read_text().splitlines()]
    assert max(event.get("step", 0) for event in events) == 45


def test_a_page_that_nobody_looks_at_asks_nothing(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/sdtrain/v1/job" in request.url else None)
    shown = "yes => { document.querySelector('#sdtrain_tabs').style.display = yes ? '' : 'none'; }"
    page.evaluate(shown, False)  # as when another tab of the WebUI is looked at
    page.wait_for_timeout(1500)
    asked.clear()
    page.wait_for_timeout(5000)
    assert asked == []
    page.evaluate(shown, True)
    page.wait_for_timeout(5000)
    assert asked


def test_an_answer_that_comes_when_the_page_is_emptied_is_no_error(site, open_page):
    site.engine.pause = 0.2
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "running")
    page.evaluate("""() => { const real = window.fetch;
        window.fetch = async (...asked) => {
            await new Promise((wait) => setTimeout(wait, 1000));
            return real(...asked);
        }; }""")
    page.wait_for_timeout(1000)  # an answer is on its way
    page.evaluate("() => document.querySelector('#sdtrain_tabs').remove()")  # as the WebUI's Reload UI does
    page.wait_for_timeout(2500)  # open_page fails for every error in the console


def test_a_server_that_went_away_is_asked_less_and_less(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/sdtrain/v1/job" in request.url else None)
    page.context.set_offline(True)
    page.wait_for_selector("#sdtrain_train[data-offline]", state="attached")
    page.wait_for_timeout(8000)
    assert len(asked) <= 3


def test_settings_are_found_by_search(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    page.click("#sdtrain_train_more .label-wrap")
    page.fill("#sdtrain_train_more input[type=search]", "snr gamma")
    shown = page.locator("#sdtrain_train_more .sdtrain-field:not(.sdtrain-hidden)")
    assert [field.get_attribute("id") for field in shown.all()] == ["sdtrain_train_loss_min_snr_gamma"]


def test_settings_that_do_not_matter_are_out_of_sight_until_they_do(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    page.click("#sdtrain_train_more .label-wrap")
    rank, vae = page.locator("#sdtrain_train_method_rank"), page.locator("#sdtrain_train_save_vae")
    rank.wait_for(state="hidden")
    assert vae.is_visible()
    page.locator("#sdtrain_train_method_kind input[value=lora]").check()
    rank.wait_for(state="visible")
    vae.wait_for(state="hidden")
    page.fill("#sdtrain_train_more input[type=search]", "save vae")
    vae.wait_for(state="visible")
    page.fill("#sdtrain_train_more input[type=search]", "")
    vae.wait_for(state="hidden")
    title = page.locator("#sdtrain_train_more .sdtrain-group-title", has_text="Previews")
    assert title.is_visible()
    set_text(page, "preview.prompts", "")
    title.wait_for(state="hidden")  # nothing is below it
    page.fill("#sdtrain_train_more input[type=search]", "previews drawn")
    title.wait_for(state="visible")


@pytest.mark.parametrize("width", [1400, 800])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(site, open_page, width, dark):
    page = open_page(site.url, width=width, dark=dark)
    wait_plan(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    start = page.locator("#sdtrain_train_start").bounding_box()
    assert start["y"] + start["height"] <= 900, "Start is in sight before anything is scrolled"


def test_a_slow_answer_does_not_take_the_place_of_a_newer_one(site, open_page):
    page, quick = open_page(site.url), site.engine.plan
    wait_plan(page)

    def plan(settings, place):
        if settings.train.length.steps(1, 1) == 55:
            time.sleep(2)  # the libraries are loaded with the first plan, say
        return quick(settings, place)

    site.engine.plan = plan
    for length in ("55", "56"):
        set_text(page, "train.length", length)
        page.wait_for_timeout(100)
    page.locator(".sdtrain-plan", has_text="56 steps").wait_for()
    page.wait_for_timeout(2500)
    assert "56 steps" in wait_plan(page)
