"""Weights, masks, filters and captions through a whole run, and what of them is recorded."""
import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from lib_sdtrain import train
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Notice
from lib_sdtrain.train.forecast import forecast
from lib_sdtrain.train.plan import make_plan
from tests.train.runs import finish, of_kind, run_settings


@pytest.fixture
def weighed(picture_folder, tmp_path):
    """kohya's folders, a metadata file and a mask; the third picture is filtered out."""
    root = tmp_path / "data"
    for name, count in (("3_sks dog", 1), ("1_a cat", 2)):
        folder = picture_folder(name, count)
        (root / name).parent.mkdir(exist_ok=True)
        folder.rename(root / name)
    rows = [{"file_name": "3_sks dog/0.png", "caption": "sks dog, sitting", "score": 5},
            {"file_name": "1_a cat/0.png", "score": 2}, {"file_name": "1_a cat/1.png", "score": 0}]
    (tmp_path / "meta.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.new("L", (80, 64), 128).save(root / "1_a cat" / "0-masklabel.png")
    return root


def changes(tmp_path):
    return {
        "data__filter": "score > 0", "data__concepts__0__weighting": "kohya", "loss__masked": True,
        "data__concepts__0__metadata_file": str(tmp_path / "meta.jsonl"), "train__length": "1 epochs",
    }


def planned(settings, tmp_path):
    events, seen = make_plan(settings, tmp_path, "cpu", CancelToken()), []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return end.value, seen


def test_the_plan_tells_shares_and_what_is_left_out(tiny_checkpoint, weighed, tmp_path):
    plan, seen = planned(run_settings(tiny_checkpoint, weighed, **changes(tmp_path)), tmp_path)
    document = forecast(plan)
    assert (document["images"], document["steps"]) == (2, 4)
    assert [(group["name"], group["share"]) for group in document["concepts"][0]["groups"]] == [
        ("1_a cat", 0.25), ("3_sks dog", 0.75)]
    assert sorted(document["prompts"]) == ["a cat", *["sks dog, sitting"] * 3]
    assert document["tokens"]["chunks"] == {"75": 1.0}
    assert any("1 of 3 pictures left out by data.filter" in notice.text for notice in of_kind(seen, Notice))


def test_a_run_records_what_decides_and_no_paths(tiny_checkpoint, weighed, tmp_path):
    settings = run_settings(tiny_checkpoint, weighed, **changes(tmp_path))
    seen = finish(train(settings, run_dir=tmp_path / "runs" / "a"))
    assert isinstance(seen[-1], Finished)
    with safe_open(Path(seen[-1].result["checkpoint"]), "pt") as file:
        about = file.metadata()["sdtrain"]
    assert str(tmp_path) not in about
    assert "meta.jsonl" not in about
    assert "kohya" in about


def test_filters_that_leave_nothing_are_a_mistake(tiny_checkpoint, weighed, tmp_path):
    settings = run_settings(tiny_checkpoint, weighed, **changes(tmp_path) | {"data__filter": "score > 10"})
    with pytest.raises(UserError, match=r"none of its pictures is left after data\.filter"):
        planned(settings, tmp_path)


@pytest.mark.parametrize(("name", "value", "said"), [
    ("data__filter", "score >", "data.filter"), ("data__caption_separator", "", "caption_separator"),
    ("data__arb", {"base_res": 3}, "data.arb"), ("data__bucket_reso_steps", 30, "data"),
    ("data__concepts__0__metadata_file", "nowhere.csv", "metadata_file"),
    ("data__concepts__0__mask_dir", "nowhere", "mask_dir"), ("data__tag_aliases", "nowhere.yaml", "nowhere.yaml"),
])
def test_mistakes_name_their_setting(tiny_checkpoint, weighed, tmp_path, name, value, said):
    given = {"data__bucketing": "kohya", "data__resolution": "128", name: value}
    settings = run_settings(tiny_checkpoint, weighed, **given)
    with pytest.raises(UserError) as caught:
        planned(settings, tmp_path)
    assert any(said in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize(("generator", "told"), [("none", 0), ("nai", 1), ("bigasp", 1)])
def test_beside_a_generator_nothing_is_shuffled_or_chosen(tiny_checkpoint, weighed, tmp_path, generator, told):
    folder = weighed / "1_a cat"
    (folder / "shuffle_tags.txt").write_text("")
    (folder / "1.txt").write_text("x, y\nz")
    concept = {"instance_dir": str(weighed), "instance_prompt": "sks", "weighting": "everydream"}
    own = {"data__concepts": [concept], "data__caption_generator": generator, "data__enable_wildcard": True}
    plan, seen = planned(run_settings(tiny_checkpoint, weighed, **own), tmp_path)
    texts = [notice.text for notice in of_kind(seen, Notice) if notice.where == "data.caption_generator"]
    assert texts == [f"shuffle_tags.txt has no effect: {generator} draws the tags anew"] * told
    assert {"x, y z", "x, y\nz"} & {p.caption for p in plan.materials[0].pictures} == {"x, y z" if told else "x, y\nz"}
