"""What the Runs sub-tab and the buttons that lead to it do, without a browser."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.ui.merge.queueing import _source
from lib_sdtrain.ui.runs.handlers import RunsHandlers
from lib_sdtrain.ui.train.concepts import CONCEPTS
from lib_sdtrain.ui.train.form import PREVIEWS
from lib_sdtrain.ui.train.handlers import TrainHandlers, wish_of
from tests.api.sites import PRESET, run, services_in

INFOTEXT = "a cup\nNegative prompt: bad\nSteps: 9, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 64x64, Clip skip: 2"


@pytest.fixture
def services(tmp_path: Path):
    found = services_in(tmp_path)
    found.queue.hold()
    return found


@pytest.fixture
def train(services) -> TrainHandlers:
    return TrainHandlers(services)


def wish(services, **words: object) -> str:
    return RunsHandlers(services).command(json.dumps(words))


def test_a_run_is_queued_with_the_form_s_values_and_the_next_name_is_free(services, train):
    values = {**train.form.filled(_preset()), "train.length": "9"}
    shown, name = train.enqueue(PRESET, values)
    assert "waits in the queue, number 1" in shown
    assert "data-ready='true'" in shown
    assert name == values["save.name"]
    assert services.queue.as_dict()["waiting"][0]["about"].startswith("9 steps")
    wrong, _ = train.enqueue(PRESET, {**values, "train.length": "nine"})
    assert "data-ready='false'" in wrong
    assert services.queue.brief()["waiting"] == 1


def _preset():
    from lib_sdtrain.api.choice import Choice

    return Choice(PRESET)


def test_a_waiting_task_and_a_run_fill_the_form(services, train):
    values = {**train.form.filled(_preset()), "train.length": "9", "train.seed": 4}
    train.enqueue(PRESET, values)
    task = services.queue.as_dict()["waiting"][0]["id"]
    opening = train.filled_from(json.dumps({"task": task}))
    assert {**opening.values, CONCEPTS: 0} == {**values, CONCEPTS: 0}
    assert services.queue.brief()["waiting"] == 0
    with pytest.raises(UserError):
        train.filled_from(json.dumps({"task": task}))
    name = run(services, train__length=5)
    assert train.filled_from(json.dumps({"run": name})).values["train.length"] == "5"


def test_a_picture_of_the_webui_becomes_a_preview_once(train):
    values = train.form.filled(_preset())
    once = train.with_preview(INFOTEXT, values)
    assert INFOTEXT in once[PREVIEWS]
    assert "a photo of sks cup" in once[PREVIEWS]
    assert train.with_preview(INFOTEXT, once)[PREVIEWS] == once[PREVIEWS]
    assert wish_of(json.dumps({"preview": INFOTEXT})) == {"preview": INFOTEXT}
    assert wish_of("{") == wish_of("[1]") == {}


def test_wishes_about_the_queue_and_runs_are_done_and_mistakes_told(services, train):
    values = train.form.filled(_preset())
    for _ in range(2):
        train.enqueue(PRESET, values)
    first, second = (task["id"] for task in services.queue.as_dict()["waiting"])
    assert "sdtrain-" not in wish(services, do="move", id=second, by=-1)  # nothing to say
    assert services.queue.as_dict()["waiting"][0]["id"] == second
    assert "taken out" in wish(services, do="remove", id=first)
    assert "no task" in wish(services, do="remove", id=first)
    name = run(services, train__length=3)
    assert "goes on" in wish(services, do="resume", run=name, length="5")
    assert services.runner.job.done.wait(20)
    assert "are free again" in wish(services, do="delete", run=name, what="run")
    assert "no run" in wish(services, do="delete", run="../..", what="files")
    for wrong in ("", "{", "[]", '{"do": "x"}', '{"do": "__class__"}'):
        assert "sdtrain-problems" in RunsHandlers(services).command(wrong)


def test_the_same_answer_again_is_another_text_so_that_the_page_sees_it(services):
    handlers = RunsHandlers(services)
    wrong = json.dumps({"do": "remove", "id": "none"})
    first, second = handlers.command(wrong), handlers.command(wrong)
    assert first != second
    assert "no task" in first and "no task" in second  # noqa: PT018


def test_words_of_users_are_escaped(services):
    evil = "<img src=x onerror=alert(1)>"
    for words in ({"do": "remove", "id": evil}, {"do": "delete", "run": evil}, {"do": evil},
                  {"do": "origin", "infotext": f"a\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Model: {evil}"}):
        assert "<img" not in wish(services, **words)


def test_a_picture_s_origin_is_followed_by_the_page(services):
    name = run(services, train__length=3, save__name="cup")
    text = "a\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model: cup"
    assert f"data-choose='{name}'" in wish(services, do="origin", infotext=text)
    assert "holds no" in wish(services, do="origin", infotext="no infotext") or "does not say" in wish(
        services, do="origin", infotext="no infotext")


def test_an_earlier_merge_is_found_by_its_hash():
    labels = ["a.safetensors [0123456789] 2026-01-01 10:00"]
    assert _source(json.dumps({"out": "/x/a.safetensors", "sha256": "0123456789abcdef"}), labels) == labels[0]
    assert _source(json.dumps({"out": "/x/b.safetensors", "sha256": "ff"}), labels) == "/x/b.safetensors"
    assert _source("{", labels) == _source("[]", labels) == ""


def test_a_preset_of_ones_own_is_deleted_and_a_shipped_one_is_not(train):
    train.save_preset("mine", PRESET, train.form.filled(_preset()))
    assert train.delete_preset("mine")[1]
    assert not train.delete_preset("toybox: try it in a minute")[1]


def test_the_command_runs_elsewhere_with_a_preset_of_ones_own(services, train, tmp_path):
    train.save_preset("mine", PRESET, train.form.filled(_preset()))
    command = train.command("mine", train.form.filled(_own()))
    assert str(tmp_path / "outputs" / "presets" / "mine.yaml") in command


def _own():
    from lib_sdtrain.api.choice import Choice

    return Choice("mine")
