"""What a page that stays open shows of jobs that come and go: the server's answers are given by the test."""
from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest

from tests.journeys.steps import LONG, curve_points, press, status, wait_plan, wait_state, wait_step

pytestmark = pytest.mark.browser
STEPS = 70_000


class Answers:
    """Answers the page's question for the job."""

    def __init__(self, page: Any) -> None:
        self.job: dict[str, Any] | None = None
        page.route("**/sdtrain/v1/job*", self._answer)

    def _answer(self, route: Any) -> None:
        body = {"job": self.job, "queue": {"waiting": 0, "next": "", "held": ""}}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    def show(self, name: str, state: str, steps: list[int], total: int = 100) -> None:
        """A training job of this name at these steps."""
        events = [{"type": "started", "step": 0, "total": total, "run_dir": name}]
        same = {"type": "step", "time": time.time(), "total": total, "smoothed": 0.1, "lr": 1e-6, "seconds_left": 9.0}
        events += [{**same, "step": step, "samples": step, "loss": step % 7} for step in steps]
        self.job = {"id": name, "kind": "train", "label": name, "state": state, "asked": "", "last": len(events),
                    "events": events}  # fmt: skip


@pytest.fixture
def watched(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    return page, Answers(page)


def label(page: Any) -> str:
    return page.locator('#sdtrain_run [data-part="label"]').inner_text()


def test_a_stop_of_one_run_is_not_shown_on_the_next(watched):
    page, answers = watched
    answers.show("first", "running", [3])
    wait_step(page, 3)
    press(page, "stop_save")
    assert "stopping after this step" in status(page)
    page.evaluate("() => { window.pressedEnd = 0; document.querySelector('#sdtrain_train_ended')"
                  ".addEventListener('click', () => { window.pressedEnd += 1; }); }")  # fmt: skip
    answers.show("second", "running", [5])  # the first ended while nobody looked
    wait_step(page, 5)
    page.wait_for_function("() => document.querySelector('#sdtrain_run [data-part=label]').innerText === 'second'")
    assert status(page) == "step 5 of 100"
    assert page.evaluate("() => window.pressedEnd") == 1  # what the first left is listed


def test_a_run_that_died_with_the_program_is_not_shown_as_running(watched):
    page, answers = watched
    answers.show("first", "running", [3])
    wait_step(page, 3)
    answers.job = None
    wait_state(page, "failed")
    assert "the program was restarted" in page.locator('#sdtrain_run [data-part="problems"]').inner_text()
    assert not page.locator("#sdtrain_train_stop_now").is_visible()
    answers.show("second", "running", [1])
    wait_state(page, "running")
    assert label(page) == "second"


def test_the_plot_of_a_run_of_days_goes_on(watched):
    page, answers = watched
    answers.show("long", "running", list(range(1, STEPS + 1)), STEPS + 10)
    wait_step(page, STEPS)
    page.wait_for_selector('#sdtrain_run [data-part="plot"] path', state="attached", timeout=LONG)
    assert 3000 <= curve_points(page) <= 6001
    steps = page.evaluate("() => window.sdtrain.job.points.map((point) => point[0])")
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert {after - before for before, after in pairwise(steps[:-1])} == {16}  # as dense at its beginning
