"""The losses of validation in a run's log: each under its name, whole after a crash and after going on."""
from __future__ import annotations

import json
import math

import pytest

from lib_sdtrain.api.history import CURVE_POINTS
from lib_sdtrain.api.run_log import RunLog
from lib_sdtrain.api.runs import past_events
from lib_sdtrain.events import Started, Step, Validation
from tests.api.sites import run, services_in

NAMES = ("validation: cat", "validation: dog", "validation", "average", "training")


@pytest.fixture
def services(tmp_path):
    found = services_in(tmp_path)
    found.train.engine.measured_at = lambda step: {name: place + step / 8 for place, name in enumerate(NAMES)}
    return found


def log_of(tmp_path, *events) -> RunLog:
    log = RunLog(tmp_path / "x")
    for event in events:
        log._take(json.loads(json.dumps(event.as_dict())))
    return log


def test_every_series_is_told_under_its_name(services):
    name = run(services, train__length=25)
    told = services.history.detail(name)["validations"]
    assert [series["name"] for series in told] == list(NAMES)
    assert told[1]["points"] == [(0, 1.0), (10, 2.25), (20, 3.5), (25, 4.125)]
    json.dumps(told)


def test_what_a_crash_has_lost_is_not_told_twice(tmp_path):
    def measured(step: int, loss: float) -> Validation:
        return Validation(step=step, loss=loss, name="training")

    log = log_of(
        tmp_path, Started(total=9), measured(0, 1.0), Step(step=2, total=9), measured(2, 0.5), measured(4, 0.4),
        Started(total=9, step=2), Step(step=4, total=9), measured(4, 0.3),
    )
    assert log.validations == {"training": [(0, 1.0), (2, 0.5), (4, 0.3)]}


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path):
    log = log_of(tmp_path, *(Validation(step=step, loss=loss) for step, loss in enumerate((0.5, math.nan, 0.4))))
    assert log.validations == {"validation": [(0, 0.5), (1, None), (2, 0.4)]}


def test_a_long_series_keeps_its_ends_and_stays_short(services):
    services.train.engine.measured_at = lambda step: {"validation": 0.5}
    name = run(services, train__length=10 * CURVE_POINTS + 100)
    points = services.history.detail(name)["validations"][0]["points"]
    assert (points[0][0], points[-1][0], len(points)) == (0, 10 * CURVE_POINTS + 100, CURVE_POINTS)


def test_a_run_that_goes_on_brings_what_was_measured_before(services):
    name = run(services, train__length=20)
    job = services.train.resume(name, {"train.length": 30})
    assert job.done.wait(20)
    told = [(event.step, event.name) for _, event in job.log.since(0) if isinstance(event, Validation)]
    assert told == [(step, series) for step in (0, 10, 20, 30) for series in NAMES]


def test_a_run_that_went_back_after_a_crash_goes_on_with_one_curve(services):
    name = run(services, train__length=20)
    log = services.train.run_named(name).path / "events.jsonl"
    lost = [Started(total=20), *(Step(step=step, total=20) for step in range(1, 16)), Validation(step=10, loss=9.0)]
    gone_on = log.read_text("utf-8").splitlines()
    log.write_text("\n".join([*(json.dumps(event.as_dict()) for event in lost), *gone_on, ""]), "utf-8")
    told = list(past_events(log.parent))
    assert [event.step for event in told if isinstance(event, Step)] == list(range(1, 21))
    assert 9.0 not in [event.loss for event in told if isinstance(event, Validation)]
