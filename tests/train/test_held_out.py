"""What stands beside a held-out picture is what would stand beside it in training: kohya's folders, metadata, names."""
from __future__ import annotations

from pathlib import Path

import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.plan import Plan, make_plan
from lib_sdtrain.train.validation import fixed_draws
from tests.train.runs import run_settings


@pytest.fixture
def kohyas(picture_folder, tmp_path):
    """A function that makes pictures in folders of these names below one."""

    def make(*folders: str, count: int = 4) -> Path:
        root = tmp_path / "data"
        root.mkdir()
        for number, name in enumerate(folders):
            own = picture_folder(f"pictures {number}", count)
            if name == ".":
                for picture in own.iterdir():
                    picture.rename(root / picture.name)
            else:
                own.rename(root / name)
        return root

    return make


@pytest.fixture
def planned(tiny_checkpoint, tmp_path):
    """A function: a folder, what its concept says, settings -> the plan; what is told goes into `told`."""

    def make(folder: Path, concept: dict, told: list | None = None, **changes) -> Plan:
        own = {"name": "sks", "instance_dir": str(folder), "instance_prompt": "", **concept}
        settings = run_settings(tiny_checkpoint, folder, **{"data__concepts": [own], **changes})
        events = make_plan(settings, tmp_path, "cpu", CancelToken())
        return result_of(events, [].append if told is None else told.append)

    return make


def trained_words(plan):
    return {draws_of(plan).at(index).prompt for index in range(2 * plan.pictures)}


def held_words(plan):
    return {draw.prompt for held in plan.held_out for draw in fixed_draws(held, plan.settings)}


@pytest.mark.parametrize("prompt", ["", "a photo of sks dog"])
@pytest.mark.parametrize("share", [{"validation__fraction": 0.25}, {"validation__count": 2}])
def test_held_out_pictures_are_called_by_their_folder_as_trained_ones_are(kohyas, planned, prompt, share):
    concept = {"weighting": "kohya", "instance_prompt": prompt}
    plan = planned(kohyas("10_sks dog", count=8), concept, **share)
    assert trained_words(plan) == held_words(plan) == {"sks dog"}


@pytest.mark.parametrize(("other", "named"), [("sks dog2", "sks dog2"), ("10_", "10_"), (".", "data")])
def test_pictures_of_a_folder_without_words_are_not_trained_on_nothing(kohyas, planned, other, named):
    root = kohyas("10_sks dog", other)
    with pytest.raises(UserError) as caught:
        planned(root, {"weighting": "kohya"})
    (problem,) = caught.value.problems
    assert problem.where == "data.concepts.0.instance_prompt"
    assert problem.what == f"4 of 8 pictures have no caption, nor words in the name of their folder: {named}"
    assert "10_sks dog" in problem.fix
    assert "prompt" in problem.fix
    for number in range(4):
        (root / other / f"{number}.txt").write_text("a cat")
    assert trained_words(planned(root, {"weighting": "kohya"})) == {"sks dog", "a cat"}
    for number in range(4):
        (root / other / f"{number}.txt").unlink()
    given = planned(root, {"weighting": "kohya", "instance_prompt": "sks"})
    assert trained_words(given) == {"sks dog", "sks"}


def test_the_filter_knows_the_words_of_folders(kohyas, planned):
    plan = planned(kohyas("1_sks dog", "1_a cat"), {"weighting": "kohya"}, data__filter="caption == 'a cat'")
    assert trained_words(plan) == {"a cat"}
