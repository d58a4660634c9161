"""The Runs sub-tab and the queue, in a real browser: three in a row, compared, lengthened, deleted, taken again."""
from __future__ import annotations

import json
import re
import threading

import pytest

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.ui.runs.handlers import RunsHandlers
from tests.journeys.steps import TRAIN, open_tab, press, set_text, wait_plan, wait_state

pytestmark = pytest.mark.browser
RUNS = "#sdtrain_runs"
PRESET = "toybox-dreambooth"


def row(page, text: str):
    return page.locator(f"{RUNS}_table tbody tr", has_text=text)


def trained(site, **settings) -> str:
    """A finished run."""
    pause, site.engine.pause = site.engine.pause, 0.0
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    job = site.services.train.start(Choice(PRESET, changes))
    assert job.done.wait(60)
    site.engine.pause = pause
    return site.services.history.entries()[0]["id"]


def test_a_queue_of_three_is_set_up_beside_a_running_job_and_looked_at_again(site, open_page):
    site.engine.pause = 0.25
    page = open_page(site.url)
    wait_plan(page)
    set_text(page, "train.length", "900")  # longer than the slowest machine takes for what follows
    page.locator(".sdtrain-plan", has_text="900 steps").wait_for()
    press(page, "enqueue")
    wait_state(page, "running")
    press(page, "another")
    for length in ("3", "4"):
        set_text(page, "train.length", length)
        page.locator(".sdtrain-plan", has_text=f"{length} steps").wait_for()
        press(page, "enqueue")
        page.locator(".sdtrain-queued").wait_for()
        page.locator(f"{TRAIN}_queue", has_text="Then: sks-cup").wait_for()
        set_text(page, "train.length", "5")
        page.locator(".sdtrain-queued").wait_for(state="detached")
    assert not page.locator(f"{TRAIN}_start").is_visible()
    page.context.close()
    again = open_page(site.url)  # the browser was closed
    wait_state(again, "running")
    again.locator(f"{TRAIN}_queue", has_text="and 1 more").wait_for()
    open_tab(again, "Runs")
    again.locator(f"{RUNS}_view li", has_text="4 steps").locator("button", has_text="↑").click()
    again.locator(f"{RUNS}_view li:nth-child(2)", has_text="4 steps").wait_for()
    again.click(f"{RUNS}_view [data-do=hold]")
    again.locator(".sdr-warning", has_text="Held").wait_for()
    site.services.runner.stop("save")
    site.engine.pause = 0.0
    again.locator(f"{RUNS}_view li .sdr-chip[data-state=stopped]").wait_for()
    again.click(f"{RUNS}_view [data-do=go_on]")
    done = "() => document.querySelectorAll('#sdtrain_runs_view li .sdr-chip[data-state=finished]').length === 2"
    again.wait_for_function(done)
    assert sorted(run.total for run in site.services.train.runs()) == [3, 4, 900]


def test_every_wish_is_told_however_quickly_they_follow_each_other(site, open_page, monkeypatch):
    told, done = [], threading.Event()

    def slowly(handlers, wish):
        told.append(json.loads(wish)["do"])
        done.wait(0.5)
        if len(told) == 4:
            done.set()
        return ""

    monkeypatch.setattr(RunsHandlers, "_answer", slowly)
    page = open_page(site.url)
    open_tab(page, "Runs")
    names = ["hold", "go_on", "hold", "clear"]
    page.evaluate("names => { for (const name of names) window.sdtrain.runs.send({do: name}); }", names)
    assert done.wait(60)
    assert told == names


def test_a_waiting_run_goes_back_into_the_form(site, open_page):
    site.services.queue.hold()
    site.services.queue.add("train", {"preset": PRESET, "settings": {"train.length": 77, "train.seed": 5}})
    page = open_page(site.url)
    wait_plan(page)
    open_tab(page, "Runs")
    page.locator(f"{RUNS}_view li button", has_text="Edit").click()
    page.locator(".sdtrain-plan", has_text="77 steps").wait_for()
    assert page.locator(f"{TRAIN}_plan").last.is_visible()
    assert site.services.queue.brief()["waiting"] == 0


def test_runs_are_compared_by_loss_previews_and_settings(site, open_page):
    trained(site, train__length=20)
    trained(site, train__length=30, train__seed=9)
    page = open_page(site.url)
    open_tab(page, "Runs")
    for text in ("20 of 20", "30 of 30"):
        row(page, text).locator("input").check()
    page.click(f"{RUNS}_view [data-do=compare]")
    difference = page.locator(f"{RUNS}_difference")
    difference.wait_for()
    assert "Seed" in difference.inner_text()
    assert "train.length" in difference.inner_text()
    assert page.locator(f"{RUNS}_view .sdtrain-plot path.smooth").count() == 2
    page.locator(f"{RUNS}_view button", has_text="Side by side").click()
    assert page.locator(f"{RUNS}_view .sdtrain-plot").count() == 2
    slider = page.locator(f"{RUNS}_view .sdr-slider input")
    slider.focus()
    slider.press("Home")
    page.locator(f"{RUNS}_view .sdr-slider b", has_text=re.compile(r"^0$")).wait_for()
    assert page.locator(f"{RUNS}_view .sdr-previews img").count() == 2
    decoded = "picture => picture.decode().then(() => picture.naturalWidth)"
    assert page.locator(f"{RUNS}_view .sdr-previews img").first.evaluate(decoded) == 128


def test_a_run_is_lengthened_taken_as_a_start_and_deleted(site, open_page):
    name = trained(site, train__length=12, train__learning_rate="3e-6")
    page = open_page(site.url)
    open_tab(page, "Runs")
    row(page, "12 of 12").click()
    page.fill(f"{RUNS}_length", "18")
    page.click(f"{RUNS}_resume")
    row(page, "18 of 18").locator(".sdr-chip[data-state=finished]").wait_for()
    page.locator(f"{RUNS}_view button", has_text="Again, with changes").click()
    page.locator(".sdtrain-plan", has_text="18 steps").wait_for()
    assert page.locator(f"{TRAIN}_train_learning_rate textarea").input_value() == "3e-6"
    open_tab(page, "Runs")
    page.locator(f"{RUNS}_view button", has_text="Delete…").click()
    page.locator(".sdr-confirm button", has_text="not its models").click()
    page.locator(f"{RUNS}_message", has_text="The run is gone").last.wait_for()
    row(page, "18 of 18").wait_for(state="detached")
    page.locator(f"{RUNS}_view [data-part=detail]").wait_for(state="hidden")
    assert (site.runs / name / "checkpoints" / "sks-cup.safetensors").exists()
    assert not (site.runs / name / "config.yaml").exists()


def test_settings_are_saved_as_a_file_and_loaded_again(site, open_page, tmp_path):
    page = open_page(site.url)
    wait_plan(page)
    page.click(f"{TRAIN}_keeping .label-wrap")
    set_text(page, "train.length", "33")
    page.locator(".sdtrain-plan", has_text="33 steps").wait_for()
    with page.expect_download() as download:
        press(page, "as_file")
    file = tmp_path / "mine.yaml"
    download.value.save_as(file)
    assert "length: 33" in file.read_text("utf-8")
    file.write_text(file.read_text("utf-8").replace("length: 33", "length: 44"), "utf-8")
    page.set_input_files("input[data-part=load-file]", file)
    page.locator(".sdtrain-plan", has_text="44 steps").wait_for()
    wait_in_sight(page, "These are the settings of mine.yaml")


def wait_in_sight(page, words: str) -> None:
    """Until the form's message says this where a person sees it."""
    page.locator(f"{TRAIN}_message", has_text=words).last.wait_for()
    page.wait_for_function(
        """message => { const {top, bottom} = document.querySelector(message).getBoundingClientRect();
                        return top >= 0 && bottom <= window.innerHeight; }""", arg=f"{TRAIN}_message",
    )  # fmt: skip


def test_a_wrong_settings_file_is_told_where_it_is_seen_and_changes_nothing(site, open_page, tmp_path):
    page = open_page(site.url)
    wait_plan(page)
    page.click(f"{TRAIN}_keeping .label-wrap")
    file = tmp_path / "mine.yaml"
    for text, words in (("train: {lenght: 4}", "unknown setting"), ("train: {length: 4", "mine.yaml")):
        page.locator("label.sdtrain-file", has_text="Load a file").scroll_into_view_if_needed()
        file.write_text(text, "utf-8")
        page.set_input_files("input[data-part=load-file]", file)
        wait_in_sight(page, words)
    assert page.locator(f"{TRAIN}_train_length textarea").input_value() == "40"


def test_settings_are_copied_and_a_mistake_is_told_instead(site, open_page):
    page = open_page(site.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    wait_plan(page)
    page.click(f"{TRAIN}_keeping .label-wrap")
    for name, words in (("as_command", "python -m lib_sdtrain train"), ("as_yaml", "toybox")):
        press(page, name)
        page.locator(f"{TRAIN}_{name}[data-copied=copied]").wait_for()
        assert words in page.evaluate("() => navigator.clipboard.readText()")
        page.locator(f"{TRAIN}_copied", has_text=words).first.wait_for()
    page.evaluate("() => navigator.clipboard.writeText('before')")
    set_text(page, "train.length", "many")
    wait_plan(page, ready=False)
    for name in ("as_command", "as_file"):
        press(page, name)
        page.locator(f"{TRAIN}_kept", has_text="train.length").last.wait_for()
    assert page.evaluate("() => navigator.clipboard.readText()") == "before"
    assert not page.locator(f"{TRAIN}_copied").first.is_visible()


def test_many_runs_long_names_and_many_pictures_leave_the_page_as_wide_as_it_is(site, open_page):
    one = trained(site, train__length=3)
    for number in range(300):
        copy = site.runs / f"20250101-{number:06d}-{'long-' * 14}{number}"
        (copy / "samples").mkdir(parents=True)
        (copy / "config.yaml").write_text((site.runs / one / "config.yaml").read_text("utf-8"), "utf-8")
        (copy / "events.jsonl").write_text((site.runs / one / "events.jsonl").read_text("utf-8"), "utf-8")
    previews = [json.dumps({"type": "preview", "time": 1.0, "step": 0, "index": index, "infotext": "x" * 300,
                            "file": "samples/step-000000-00.png"}) for index in range(4000)]  # fmt: skip
    with (site.runs / one / "events.jsonl").open("a", encoding="utf-8") as log:
        log.write("\n".join([*previews, ""]))
    page = open_page(site.url, width=800)
    open_tab(page, "Runs")
    page.locator(f"{RUNS}_view [data-part=count]", has_text="301 in all").wait_for()
    row(page, "3 of 3").first.click()
    page.locator(".sdr-title").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.fill(f"{RUNS}_view [data-part=search]", "long-299")
    page.locator(f"{RUNS}_view [data-part=count]", has_text="1 of 301").wait_for()
