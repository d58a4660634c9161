"""Several subjects in one form."""
from __future__ import annotations

from pathlib import Path

import pytest

from lib_sdtrain import textfiles
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.copies import command_line
from lib_sdtrain.api.services import Services
from lib_sdtrain.errors import Problem
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.ui.train.concepts import CONCEPTS, FIRST, Concepts
from lib_sdtrain.ui.train.form import Form
from lib_sdtrain.ui.train.handlers import TrainHandlers
from tests.fake_engine import FakeEngine

PRESET = "toybox-dreambooth"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(StandaloneHost(tmp_path), FakeEngine("/pictures"))


@pytest.fixture
def form(services) -> Form:
    return Form(services.train)


def with_concepts(values: dict, concepts: Concepts) -> dict:
    return {**values, **concepts.controls(), CONCEPTS: concepts.as_state()}


def two_subjects(form: Form) -> dict:
    values = form.filled(Choice(PRESET))
    values = with_concepts(values, Concepts.of(values).added())
    return {**values, f"{FIRST}.instance_dir": "/bottles", f"{FIRST}.instance_prompt": "a photo of zwx bottle"}


def names(form: Form, values: dict) -> list[str]:
    settings = form.service.resolve(form.choice(PRESET, values)).settings
    return [f"{concept.name} {concept.instance_dir}" for concept in settings.data.concepts]


def test_an_added_subject_is_learnt_beside_the_first(form):
    assert names(form, two_subjects(form)) == ["sks-cup /pictures", "subject-2 /bottles"]


def test_both_subjects_keep_what_was_typed_while_going_back_and_forth(form):
    values = two_subjects(form)
    back = with_concepts(values, Concepts.of(values).chosen("1: sks-cup"))
    assert back[f"{FIRST}.instance_dir"] == "/pictures"
    back[f"{FIRST}.name"] = "cup"
    again = with_concepts(back, Concepts.of(back).chosen("2: subject-2"))
    assert again[f"{FIRST}.instance_dir"] == "/bottles"
    assert names(form, again) == ["cup /pictures", "subject-2 /bottles"]


def test_a_removed_subject_is_gone_and_the_last_one_stays(form):
    values = two_subjects(form)
    first_shown = with_concepts(values, Concepts.of(values).chosen("1: sks-cup"))
    one = Concepts.of(first_shown).removed()
    assert names(form, with_concepts(values, one)) == ["subject-2 /bottles"]
    assert one.removed() == one


def test_a_subject_of_the_preset_can_be_removed(form, services):
    values = two_subjects(form)
    TrainHandlers(services).save_preset("both", PRESET, values)
    both = form.filled(Choice("both"))
    one = with_concepts(both, Concepts.of(both).removed())
    choice = form.choice("both", one)
    assert [c.name for c in form.service.resolve(choice).settings.data.concepts] == ["subject-2"]
    assert '--set \'data.concepts=[{"name": "subject-2"' in command_line(choice)


def test_a_preset_with_several_subjects_is_shown_and_comes_back_unchanged(form, services):
    TrainHandlers(services).save_preset("both", PRESET, two_subjects(form))
    values = form.filled(Choice("both"))
    assert Concepts.of(values).titles() == ["1: sks-cup", "2: subject-2"]
    assert form.choice("both", values).changes == {}


def test_the_yaml_of_several_subjects_gives_the_same_run(form, services):
    values = two_subjects(form)
    text = TrainHandlers(services).yaml(PRESET, values)
    again = build(RunSettings, textfiles.parse_yaml(text, "yaml"))
    assert again == form.service.resolve(form.choice(PRESET, values)).settings


def test_an_untouched_form_without_preset_has_no_subject(form):
    assert form.choice("", form.filled(Choice())).changes == {}


@pytest.mark.parametrize("title", ["", "None", "7: x", "0: x", "x", "-1: x"])
def test_a_title_that_is_none_changes_nothing(form, title):
    concepts = Concepts.of(two_subjects(form))
    assert concepts.chosen(title) == concepts


def test_a_mistake_stands_at_the_control_that_shows_it(form):
    concepts = Concepts.of(two_subjects(form))
    assert concepts.placed(Problem("bad", f"{CONCEPTS}.1.instance_dir")).where == f"{FIRST}.instance_dir"
    elsewhere = concepts.placed(Problem("bad", f"{CONCEPTS}.0.instance_dir"))
    assert (elsewhere.what, elsewhere.where) == ("concept 1: bad", "")
    assert concepts.placed(Problem("bad", "train.length")).where == "train.length"
    assert concepts.placed(Problem("nothing to learn is given", CONCEPTS)).where == f"{FIRST}.instance_dir"
