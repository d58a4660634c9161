"""The curves of validation: told apart by name, line and shape, the same live, after a reload and in Runs."""
from __future__ import annotations

import math

import pytest

from lib_sdtrain.api.choice import Choice
from tests.journeys.steps import open_tab, press, set_text, wait_plan, wait_state, wait_step

pytestmark = pytest.mark.browser
RUN, RUNS = "#sdtrain_run", "#sdtrain_runs_view"
EVIL = "<img src=x onerror='window.hacked=1'>"
DRAWN = """(place) => [...document.querySelectorAll(place + ' .sdtrain-plot .measured')].map((line) => {
    const style = getComputedStyle(line);
    return [line.dataset.series, line.getAttribute('d'), style.stroke, style.strokeDasharray]; })"""
SHAPES = """(place) => [...new Set([...document.querySelectorAll(place + ' .sdtrain-plot .mark')]
    .map((mark) => mark.getAttribute('d')))].length"""


def measured(*concepts: str):
    """Losses that fall, a concept's below another's."""

    def at(step: int) -> dict[str, float]:
        fall = 0.1 / (1 + step / 10)
        of_concepts = {f"validation: {name}": 0.1 + fall + 0.04 * place for place, name in enumerate(concepts)}
        return {**of_concepts, "validation": 0.12 + fall, "training": 0.06 + fall}

    return at


def with_average(at):
    """The same with the loss of the average, below that of the last weights."""

    def both(step: int) -> dict[str, float]:
        losses = at(step)
        return {**losses, "average": losses["validation"] - 0.01}

    return both


def legend(page, place: str) -> list[str]:
    """The legend's entries as a person reads them."""
    entries = page.locator(f"{place} .sdtrain-series")
    entries.first.wait_for()
    return [" ".join(text.split()) for text in entries.all_inner_texts()]


def trained(site, length: int, **more) -> None:
    pause, site.engine.pause = site.engine.pause, 0.0
    job = site.services.train.start(Choice("toybox-dreambooth", {"train.length": length, **more}))
    assert job.done.wait(60)
    site.engine.pause = pause


def test_each_series_has_its_name_line_shape_and_last_value(site, open_page):
    site.engine.measured_at = measured("cat", "dog")
    page = open_page(site.url, width=800)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    wanted = ["held out, all 0.140 at step 40", "stable 0.0800 at step 40", "held out: cat 0.120 at step 40",
              "held out: dog 0.160 at step 40"]  # fmt: skip
    assert legend(page, RUN) == wanted
    drawn = page.evaluate(DRAWN, RUN)
    assert [line[0] for line in drawn] == ["validation", "training", "validation: cat", "validation: dog"]
    for part in (1, 2, 3):  # the line, its colour, its dashes
        assert len({line[part] for line in drawn}) == 4
    assert page.evaluate(SHAPES, RUN) == 4
    marks = page.locator(f"{RUN} .sdtrain-plot .hit title").evaluate_all("all => all.map((one) => one.textContent)")
    assert "held out: dog, step 10: 0.190" in marks
    assert len(marks) == 4 * 5
    assert page.locator(f"{RUN} .sdtrain-plot path.smooth").count() == 1
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")

    page.reload()
    wait_state(page, "finished")
    assert legend(page, RUN) == wanted
    assert page.evaluate(DRAWN, RUN) == drawn

    open_tab(page, "Runs")
    page.locator("#sdtrain_runs_table tbody tr").first.click()
    assert legend(page, RUNS) == wanted
    assert page.evaluate(DRAWN, RUNS) == drawn


@pytest.mark.parametrize("concepts", [(), ("cat", "dog", "cup", "ball", "tree")])
def test_the_average_has_a_look_of_its_own_everywhere(site, open_page, concepts):
    site.engine.measured_at = with_average(measured(*concepts))
    page = open_page(site.url, width=800)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    told = legend(page, RUN)
    first = "held out, all" if concepts else "held out"
    assert told[:3] == [f"{first} 0.140 at step 40", "held out, moving average 0.130 at step 40",
                        "stable 0.0800 at step 40"]  # fmt: skip
    drawn = page.evaluate(DRAWN, RUN)
    assert [line[0] for line in drawn[:3]] == ["validation", "average", "training"]
    assert page.evaluate(SHAPES, RUN) == len(drawn) == 3 + len(concepts)
    for part in (2, 3):  # colour and dashes
        assert len({line[part] for line in drawn}) == len(drawn)
    page.reload()
    wait_state(page, "finished")
    assert (legend(page, RUN), page.evaluate(DRAWN, RUN)) == (told, drawn)
    open_tab(page, "Runs")
    page.locator("#sdtrain_runs_table tbody tr").first.click()
    assert (legend(page, RUNS), page.evaluate(DRAWN, RUNS)) == (told, drawn)


def test_the_legend_tells_the_values_under_the_pointer(site, open_page):
    site.engine.measured_at = measured()
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    box = page.locator(f"{RUN} .sdtrain-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.12, box["y"] + box["height"] / 2)
    page.locator(f"{RUN} .sdtrain-series", has_text="at step 0").first.wait_for()
    assert legend(page, RUN) == ["held out 0.220 at step 0", "stable 0.160 at step 0"]
    page.mouse.move(box["x"], box["y"] - 60)
    page.locator(f"{RUN} .sdtrain-series", has_text="at step 40").first.wait_for()


def test_a_run_without_validation_has_no_legend(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    assert page.locator(f"{RUN} .sdtrain-series").count() == 0
    assert page.evaluate(DRAWN, RUN) == []


def test_a_run_that_goes_on_shows_what_was_measured_before(site, open_page):
    site.engine.measured_at = measured()
    page = open_page(site.url)
    wait_plan(page)
    press(page, "start")
    wait_step(page, 12)
    press(page, "stop_save")
    wait_state(page, "stopped")
    press(page, "resume")
    wait_state(page, "finished")
    steps = page.evaluate("() => window.sdtrain.job.validations.map((series) => series.points.map((one) => one[0]))")
    assert steps == [[0, 10, 20, 30, 40]] * 2


def test_names_are_text_and_a_loss_that_is_no_number_is_a_gap(site, open_page):
    site.engine.measured_at = lambda step: {f"validation: {EVIL}": 0.2, "validation": 0.2 if step < 20 else math.nan}
    page = open_page(site.url, width=800, dark=True)
    wait_plan(page)
    set_text(page, "train.length", "30")
    page.locator(".sdtrain-plan", has_text="30 steps").wait_for()
    press(page, "start")
    wait_state(page, "finished")
    assert legend(page, RUN) == ["held out, all not a number at step 30", f"held out: {EVIL} 0.200 at step 30"]
    assert page.locator(f"{RUN} .sdtrain-plot .hit").count() == 2 + 4
    assert page.evaluate("() => window.hacked") is None
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


def test_compared_runs_have_their_colours_and_a_line_of_the_legend_for_each_series(site, open_page):
    site.engine.measured_at = measured("cat", "dog")
    trained(site, 20)
    site.engine.measured_at = measured()
    trained(site, 30, **{"train.seed": 9})
    page = open_page(site.url)
    open_tab(page, "Runs")
    for text in ("20 of 20", "30 of 30"):
        page.locator("#sdtrain_runs_table tbody tr", has_text=text).locator("input").check()
    page.click(f"{RUNS} [data-do=compare]")
    found = legend(page, RUNS)
    names = ["held out, all", "stable", "held out: cat", "held out: dog"]
    assert [line.split(" sks-cup")[0] for line in found] == names
    assert [line.count("at step") for line in found] == [2, 2, 1, 1]
    drawn = page.evaluate(DRAWN, RUNS)
    held = [line for line in drawn if line[0] == "validation"]
    assert held[0][2] != held[1][2]  # a colour each run,
    assert held[0][3] == held[1][3]  # the same dashes for the same series
    assert len({line[3] for line in drawn}) == 4
    page.locator(f"{RUNS} button", has_text="Side by side").click()
    apart = page.evaluate(DRAWN, RUNS)
    assert [line[2:] for line in apart] == [line[2:] for line in drawn]
