"""How long a run will take: from what was measured, or unknown."""
from __future__ import annotations

import pytest

from lib_sdtrain.api.pace import PaceBook, Stopwatch, amounts
from lib_sdtrain.events import Event, Phase, Preview, Saved, Started, Step
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.settings.run_outputs import PreviewSettings


def a_run(steps: int) -> list[tuple[Event, float]]:
    """Events of a run with the seconds before each: slow first step, 2 s a step, 3 s a preview, 5 s a class picture."""
    events: list[tuple[Event, float]] = [(Started(), 0), (Phase(name="loading model"), 4)]
    events += [(Saved(kind="picture"), 5), (Preview(), 3), (Step(step=1), 9)]
    events += [(Step(step=number), 2) for number in range(2, steps + 1)]
    return [*events, (Preview(), 3), (Saved(kind="checkpoint"), 6)]


def watched(steps: int) -> Stopwatch:
    watch, now = Stopwatch(), 0.0
    for event, seconds in a_run(steps):
        now += seconds
        watch.observe(event, now)
    return watch


def test_every_kind_of_work_is_measured_apart():
    assert watched(10).measured() == {"step": 2, "preview": 3, "class_picture": 5, "rest": 4 + 9 + 6}


def test_a_few_steps_say_nothing():
    assert watched(4).measured() == {}


def test_the_next_run_is_foreseen_and_what_was_never_measured_is_not(tmp_path, monkeypatch):
    book = PaceBook(tmp_path / "outputs" / "pace.json")
    assert book.seconds("sd1 512", {"step": 100}) is None
    clock = {"now": 0.0}
    monkeypatch.setattr("lib_sdtrain.api.pace.time.monotonic", lambda: clock["now"])

    def events():
        for event, seconds in a_run(10):
            clock["now"] += seconds
            yield event

    assert len(list(book.measuring("sd1 512", events()))) == len(a_run(10))
    assert book.seconds("sd1 512", {"step": 100, "preview": 4, "class_picture": 0}) == 19 + 200 + 12
    assert book.seconds("sd1 768", {"step": 100}) is None
    assert PaceBook(book.file).seconds("sd1 512", {"step": 1}) == 21


def test_a_measurement_adds_to_what_is_known(tmp_path):
    book = PaceBook(tmp_path / "pace.json")
    book._remember("x", {"step": 1.0, "rest": 1.0, "preview": 7.0})
    book._remember("x", {"step": 2.0, "rest": 0.0})
    assert book.seconds("x", {"step": 1, "preview": 1}) == 9


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 3}'])
def test_a_damaged_book_knows_nothing(tmp_path, text):
    book = PaceBook(tmp_path / "pace.json")
    book.file.write_text(text)
    assert book.seconds("x", {"step": 1}) is None
    if text != '{"x": 3}':
        book._remember("y", {"step": 1.0, "rest": 0.0})
        assert book.seconds("y", {"step": 3}) == 3


def test_a_run_does_not_fail_because_its_pace_cannot_be_kept(tmp_path, caplog):
    (tmp_path / "outputs").write_text("a file is in the way")
    book = PaceBook(tmp_path / "outputs" / "pace.json")
    book._remember("x", {"step": 1.0, "rest": 0.0})
    assert "cannot be remembered" in caplog.text


def test_how_much_there_is_to_do():
    settings = RunSettings(preview=PreviewSettings(prompts=("a", "b"), every=Length(100)), train=TrainGroup())
    document = {"steps": 300, "images": 8, "concepts": [{"class_images_to_make": 12}]}
    assert amounts(settings, document) == {"step": 300, "preview": 8, "class_picture": 12}  # at 0, 100, 200 and 300
