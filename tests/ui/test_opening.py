"""What a page shows when it is opened: the settings of the last start, or a newcomer's first screen."""
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_sdtrain import textfiles
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.services import Services
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.ui.train.handlers import TrainHandlers
from lib_sdtrain.ui.train.layout import NO_PRESET
from tests.fake_engine import FakeEngine

PRESET, TITLE = "toybox-dreambooth", "toybox: try it in a minute"


@pytest.fixture
def handlers(tmp_path: Path) -> TrainHandlers:
    subject = tmp_path / "subject"
    subject.mkdir()
    Image.new("RGB", (64, 64)).save(subject / "0.png")
    host = StandaloneHost(tmp_path)
    return TrainHandlers(Services(host, FakeEngine(str(subject))))


def start(handlers: TrainHandlers, **changes: object) -> None:
    values = {**handlers.form.filled(Choice(PRESET)), **{key.replace("__", "."): text for key, text in changes.items()}}
    assert handlers.start(PRESET, values) == ""
    assert handlers.service.runner.job.done.wait(20)


def test_a_newcomer_sees_toybox(handlers):
    opening = handlers.opening()
    assert (opening.preset, opening.message) == (TITLE, "")
    assert opening.values["train.length"] == "40"
    assert not handlers.changed(opening.preset, opening.values)


def test_the_settings_of_the_last_start_come_back(handlers):
    start(handlers, train__length="7", train__seed=5)
    opening = handlers.opening()
    assert opening.preset == TITLE
    assert (opening.values["train.length"], opening.values["train.seed"]) == ("7", 5)
    assert handlers.changed(opening.preset, opening.values)
    assert handlers.untouched(opening.preset)["train.length"] == "40"


def test_only_what_the_user_changed_is_kept_so_that_new_defaults_arrive(handlers):
    start(handlers, train__length="7")
    kept = textfiles.read_mapping(handlers.service.last.file)
    assert kept == {"preset": PRESET, "settings": {"train.length": "7"}}
    assert [path.name for path in handlers.service.last.file.parent.iterdir() if "tmp" in path.name] == []


def test_a_start_that_is_refused_is_not_remembered(handlers):
    values = {**handlers.form.filled(Choice(PRESET)), "train.length": "no number"}
    assert "sdtrain-problems" in handlers.start(PRESET, values)
    assert handlers.service.last.read() is None


@pytest.mark.parametrize("text", ["preset: [", "preset: gone", "settings: 3", "settings: {no.such: 1}"])
def test_damaged_settings_are_told_and_toybox_is_shown(handlers, text):
    handlers.service.last.file.parent.mkdir(parents=True)
    handlers.service.last.file.write_text(text, encoding="utf-8")
    opening = handlers.opening()
    assert opening.preset == TITLE
    assert "sdtrain-problems" in opening.message


def test_a_damaged_first_preset_is_told_and_the_form_is_empty(handlers, monkeypatch):
    monkeypatch.setattr(FakeEngine, "preset", lambda self, name: textfiles.parse_yaml("a: [", "toybox.yaml"))
    opening = handlers.opening()
    assert opening.preset == NO_PRESET
    assert "not valid YAML" in opening.message


def test_the_name_of_a_result_that_is_there_is_numbered(handlers, tmp_path, monkeypatch):
    monkeypatch.setattr(StandaloneHost, "checkpoint_dir", lambda self: tmp_path)
    for expected in ("cat", "cat-2", "cat-3", "cat-4"):
        name = handlers.service.free_name("cat-2" if expected == "cat-3" else "cat")
        assert name == expected
        (tmp_path / f"{expected}.safetensors").touch()


def test_a_loras_name_is_free_where_loras_are_and_a_step_of_one_takes_it(handlers, tmp_path, monkeypatch):
    models, loras = tmp_path / "models", tmp_path / "Lora"
    monkeypatch.setattr(StandaloneHost, "checkpoint_dir", lambda self: models)
    monkeypatch.setattr(StandaloneHost, "lora_dir", lambda self: loras)
    for folder, name in ((models, "cat"), (loras, "dog-000100")):
        folder.mkdir()
        (folder / f"{name}.safetensors").touch()
    free = handlers.service.free_name
    assert [free("cat", "lora"), free("dog", "lora"), free("cat", "full"), free("dog", "full")] == [
        "cat", "dog-2", "cat-2", "dog"]
