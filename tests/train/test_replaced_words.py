"""When a trigger word becomes another one: once in a run, however many stages it has."""
from __future__ import annotations

from types import SimpleNamespace

import pytest

from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.stages import laid_out, plan_stages
from lib_sdtrain.train.validation import fixed_draws
from tests.train.runs import run_settings

#: three steps, then two, then two of two samples: 7 steps, 9 samples, 3 epochs
CHAIN = [{"train.length": 2}, {"train": {"batch_size": 2}}]


@pytest.fixture
def plans(tiny_checkpoint, picture_folder, tmp_path):
    """A function: from when on words are replaced -> the plans of the stages."""
    folder = picture_folder("i", 5)

    def make(begin, **changes):
        own = {"train__length": 3, "stages": CHAIN, "validation__count": 2, "data__replace_words": {"sks": "ohwx"},
               "data__replace_words_from": begin, **changes}  # fmt: skip
        settings = run_settings(tiny_checkpoint, folder, **own)
        return result_of(plan_stages(settings, tmp_path, "cpu", CancelToken()), lambda event: None)

    return make


def said(plan):
    """o for a sample that says the old word, n for one that says the new one."""
    prompts = [draws_of(plan).at(index).prompt for index in range(plan.steps * plan.samples_a_step)]
    return "".join({"a photo of sks dog": "o", "a photo of ohwx dog": "n"}[prompt] for prompt in prompts)


@pytest.mark.parametrize(("begin", "wanted"), [
    (0, "nnn nn nnnn"), (2, "oon nn nnnn"), (3, "ooo nn nnnn"), (4, "ooo on nnnn"), (6, "ooo oo oonn"),
    (7, "ooo oo oooo"), ("4 samples", "ooo on nnnn"), ("7 samples", "ooo oo oonn"), ("1 epochs", "ooo nn nnnn"),
    ("1.5 epochs", "ooo oo nnnn"), ("2 epochs", "ooo oo oonn"),
])  # fmt: skip
def test_words_are_replaced_from_where_the_whole_run_is(plans, tmp_path, begin, wanted):
    stages = plans(begin)
    assert " ".join(map(said, stages)) == wanted
    assert " ".join(said(stage.plan) for stage in laid_out(stages, RunDir(tmp_path / "run"))) == wanted


def test_another_batch_size_on_the_way_moves_no_step(plans):
    """Up to step 2 a step took in one sample, from then on it is two: step 4 begins with sample 2 + 2 * 2."""
    (plan,) = plans(4, stages=[], train__length=7, train__batch_size=2)
    assert said(plan.after(SimpleNamespace(facts={"step": 2, "samples": 2})))[:8] == "oooooonn"


def test_validation_says_the_new_word_from_the_beginning(plans):
    for plan in plans(6):
        words = {draw.prompt for held in plan.held_out + plan.materials for draw in fixed_draws(held, plan.settings)}
        assert words == {"a photo of ohwx dog"}
