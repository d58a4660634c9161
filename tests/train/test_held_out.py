"""What stands beside a held-out picture is what would stand beside it in training: kohya's folders, metadata, names."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Notice, result_of
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


@pytest.fixture
def folders(picture_folder, tmp_path):
    """(folder to train on, folder to validate on); meta.jsonl beside them tells of the pictures of both."""
    trained, held = picture_folder("trained", 2), picture_folder("held", 2)
    for number in range(2):
        (held / f"{number}.png").rename(held / f"ann_{number}.png")
        (trained / f"{number}.png").rename(trained / f"bob_{number}.png")
    names = [f"{name}_{number}.png" for name in ("ann", "bob") for number in range(2)]
    write_rows(tmp_path / "meta.jsonl", {name: {"caption": f"of {name}", "score": int(name[4])} for name in names})
    return trained, held


def write_rows(path, rows):
    path.write_text("\n".join(json.dumps({"file_name": name, **row}) for name, row in rows.items()))


def held_of(plan):
    return {picture.path.name for held in plan.held_out for picture in held.pictures}


def test_the_metadata_tells_of_a_folder_to_validate_on(folders, planned, tmp_path):
    trained, held = folders
    concept = {"metadata_file": str(tmp_path / "meta.jsonl")}
    plan = planned(trained, concept, validation__dir=str(held))
    assert held_words(plan) == {"of ann_0.png", "of ann_1.png"}
    asked = concept | {"instance_prompt": "[column:score], [filewords]"}
    assert held_words(planned(trained, asked, validation__dir=str(held))) == {"0, of ann_0.png", "1, of ann_1.png"}
    plan = planned(trained, concept, validation__dir=str(held), data__filter="score > 0")
    assert held_of(plan) == {"ann_1.png"}
    write_rows(held / "meta.jsonl", {f"ann_{number}.png": {"caption": "of its own"} for number in range(2)})
    assert held_words(planned(trained, concept, validation__dir=str(held))) == {"of its own"}


@pytest.mark.parametrize(("concept", "changes", "words"), [
    ({"filename_captions": True}, {}, {"ann"}),
    ({"weighting": "kohya", "instance_prompt": "x"}, {"folder": "3_a cat"}, {"a cat"}),
    ({"instance_prompt": "x"}, {"caption": "{one|one}\n{one|one}", "data__enable_wildcard": True}, {"one"}),
])  # fmt: skip
def test_names_folders_and_wildcards_count_there_too(folders, planned, tmp_path, concept, changes, words):
    trained, held = folders
    if folder := changes.pop("folder", None):
        held = held.rename(tmp_path / folder)
    if caption := changes.pop("caption", None):
        for number in range(2):
            (held / f"ann_{number}.txt").write_text(caption)
    assert held_words(planned(trained, concept, validation__dir=str(held), **changes)) == words


def test_a_folder_to_validate_on_of_which_nothing_is_left_is_a_mistake(folders, planned, tmp_path):
    trained, held = folders
    write_rows(tmp_path / "meta.jsonl", {f"bob_{number}.png": {"score": 1} for number in range(2)})
    concept, told = {"metadata_file": str(tmp_path / "meta.jsonl"), "instance_prompt": "sks"}, []
    with pytest.raises(UserError) as caught:
        planned(trained, concept, told, validation__dir=str(held), data__filter="score > 0")
    (problem,) = caught.value.problems
    assert (problem.where, problem.what) == (
        "validation.dir", "none of its pictures is left after data.filter and the buckets")
    notices = [(event.where, event.text) for event in told if isinstance(event, Notice)]
    assert ("validation.dir", "2 of 2 pictures left out by data.filter") in notices


def test_a_row_that_tells_of_two_pictures_of_one_name_is_told(folders, planned, tmp_path):
    trained, held = folders
    (held / "ann_0.png").rename(held / "bob_0.png")
    concept, told = {"metadata_file": str(tmp_path / "meta.jsonl")}, []
    planned(trained, concept, told, validation__dir=str(held))
    (said,) = [event.text for event in told if isinstance(event, Notice) and event.where == "validation.dir"]
    assert said.startswith("1 pictures are called as pictures that are trained on (bob_0.png)")
