"""Weights of folders and pictures, against the systems they come from and worked-out numbers."""
import json
from collections import Counter
from pathlib import Path

import pytest

from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.groups import hint, repeats_of, weighted, with_folder_words
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.run import Concept, DataSettings
from lib_sdtrain.train.data_plan import concept_rows

HIERARCHY = {"1_character/class1": 4, "1_character/class2": 3, "others/class1": 5, "others/class3": 2}
EXPECTED = {"1_character/class1": 0.3, "1_character/class2": 0.45, "others/class1": 0.2, "others/class3": 0.05}


@pytest.fixture
def grouped(tmp_path):
    """A function: folders with numbers of pictures, files beside them, settings of the concept -> weighted material."""

    def make(folders, files=(), **concept):
        pictures = []
        for folder, count in sorted(folders.items()):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = tmp_path / folder / f"{number}.png"
                pictures.append(Picture(path, f"{folder}/{number}", (8, 8), None))
        for name, text in dict(files).items():
            (tmp_path / name).write_text(text)
        own = Concept(**concept)
        worded = with_folder_words(tuple(pictures), own, tmp_path)
        return weighted(Material(own, worded), tmp_path, "data.concepts.0")

    return make


def shares(material):
    return {row["name"]: row["share"] for row in concept_rows([material])[0]["groups"]}


def seen(material, samples, **data):
    draws = Draws([material], DataSettings(**data), seed=3)
    return [draws.at(n) for n in range(samples)]


def folder_of(draw):
    return draw.picture.sha256.rpartition("/")[0]


def test_the_hierarchical_example(grouped, tmp_path):
    files = {"weights.csv": "1_character, 3\nclass1, 4\n*class2, 6\n"}
    material = grouped(HIERARCHY, files, weighting="tree", group_weights_file=str(tmp_path / "weights.csv"))
    assert shares(material) == pytest.approx(EXPECTED)
    tree = {"1_character": {"weight": 3, "class1": 4, "class2": 6}, "others": {"class1": 4}}
    assert shares(grouped(HIERARCHY, weighting="tree", group_weights=tree)) == pytest.approx(EXPECTED)
    # the rarest pictures are those of others/class3: 0.05 / 2 = 0.025 each; an epoch sees each once
    assert material.epoch == 40
    rows = {row["name"]: row["multiply"] for row in concept_rows([material])[0]["groups"]}
    assert rows == {"1_character/class1": 3.0, "1_character/class2": 6.0, "others/class1": 1.6, "others/class3": 1.0}


def test_shares_are_fair_wherever_a_run_stops(grouped):
    """Also at 0.64 of an epoch: each group within one picture of its share, and none of its pictures seen twice before
    all are seen."""
    tree = {"1_character": {"weight": 3, "class1": 4, "class2": 6}, "others": {"class1": 4}}
    counts = Counter()
    for number, draw in enumerate(seen(grouped(HIERARCHY, weighting="tree", group_weights=tree), 1000), 1):
        counts[folder_of(draw)] += 1
        assert all(abs(counts[name] - share * number) < 1 for name, share in EXPECTED.items())
    short = seen(grouped(HIERARCHY, weighting="tree", group_weights=tree), 64)
    pictures = Counter(draw.picture.sha256 for draw in short)
    for name, count in HIERARCHY.items():
        turns = [pictures[f"{name}/{number}"] for number in range(count)]
        assert max(turns) - min(turns) <= 1


def test_pictures_beside_folders_count_as_one_more_neighbour(grouped):
    material = grouped({"a": 2, "a/b": 1, "c": 1}, weighting="tree", group_weights={"a": {"weight": 3, "b": 2}})
    assert shares(material) == pytest.approx({"a": 0.75 * 3 / 5, "a/b": 0.75 * 2 / 5, "c": 0.25})


def test_kohyas_repeats_and_names(grouped):
    material = grouped({"10_sks dog": 3, "2_a cat": 5, "more/4_bird/sub": 1}, weighting="kohya")
    assert material.epoch == 30 + 10 + 4
    expected = {"10_sks dog": 30 / 44, "2_a cat": 10 / 44, "more/4_bird/sub": 4 / 44}
    assert shares(material) == pytest.approx(expected, abs=1e-6)
    draws = seen(material, 44)
    assert Counter(draw.prompt for draw in draws) == {"sks dog": 30, "a cat": 10, "bird": 4}
    assert set(Counter(draw.picture.sha256 for draw in draws).values()) == {10, 2, 4}


def test_the_folder_itself_may_be_the_one_with_repeats():
    assert repeats_of(Path("x/7_a dog"), Path()) == (7, "a dog")


@pytest.mark.parametrize(("weighting", "epoch", "counts"), [
    ("everydream", 14, {"a": 1.5 * 4, "a/b": 2, "c": 3.47 * 2}),     # floor(6 + 2 + 6.94); a/b does not inherit
    ("everydream1", 12, {"a": 4, "a/b": 2, "c": 6}),                 # int(1.5) = 1, int(3.47) = 3
])
def test_everydreams_multiply(grouped, weighting, epoch, counts):
    files = {"a/multiply.txt": "1.5\n", "c/multiply.txt": "3.47"}
    material = grouped({"a": 4, "a/b": 2, "c": 2}, files, weighting=weighting)
    assert material.epoch == epoch
    total = sum(counts.values())
    assert shares(material) == pytest.approx({name: count / total for name, count in counts.items()}, abs=1e-6)


def test_everydream1_drops_what_is_below_one(grouped):
    files = {"a/multiply.txt": "0.5"}
    assert shares(grouped({"a": 4, "b": 2}, files, weighting="everydream1")) == {"b": 1.0}
    assert shares(grouped({"a": 4, "b": 2}, files, weighting="everydream")) == {"a": 0.5, "b": 0.5}


def test_side_files_and_which_of_them_wins(grouped):
    files = {
        "global.yaml": "flip_p: 1.0\nmultiply: 2\n", "a/global.yaml": "flip_p: 0.0\n",
        "a/b/local.yaml": "flip_p: 1.0\n",
        "a/b/multiply.txt": "3", "a/cond_dropout.txt": "1.0", "c/loss_scale.txt": "0.25", "c/batch_id.txt": "night",
        "c/shuffle_tags.txt": "",
    }
    material = grouped({"a": 1, "a/b": 1, "c": 1}, files, weighting="everydream", instance_prompt="x, y")
    by_name = {group.name: group for group in material.groups}
    assert [by_name[name].weight for name in ("a", "a/b", "c")] == [2, 3, 2]
    assert (by_name["c"].loss_scale, by_name["c"].batch_id, by_name["c"].shuffle) == (0.25, "night", True)
    draws = {folder_of(draw): draw for draw in seen(material, 20)}
    assert {name: draw.flip for name, draw in draws.items()} == {"a": False, "a/b": True, "c": True}
    assert draws["a"].prompt == ""
    assert draws["a/b"].prompt == "x, y"
    assert draws["c"].loss_weight == 0.25


def test_named_batches_keep_their_pictures_together(grouped):
    files = {"a/batch_id.txt": "night", "b/batch_id.txt": "day"}
    material = grouped({"a": 3, "b": 5, "c": 4}, files, weighting="everydream")
    draws = Draws([material], DataSettings(), 0, batch_size=4)
    batches = [{folder_of(draws.at(n + k)) for k in range(4)} for n in range(0, 240, 4)]
    assert all(len(batch) == 1 for batch in batches)
    assert Counter(next(iter(batch)) for batch in batches) == {"a": 15, "b": 25, "c": 20}


def test_weights_of_single_pictures(grouped, tmp_path):
    files = {"weights.json": json.dumps({"a/0.png": 3, "a/1.png": 0, "2.png": 0.5})}
    material = grouped({"a": 4}, files, picture_weights=str(tmp_path / "weights.json"))
    assert material.epoch == 4                                    # 3 + 0 + 0.5 + 1, rounded down
    counts = Counter(draw.picture.sha256 for draw in seen(material, 900))
    assert counts["a/1"] == 0
    assert [counts[f"a/{n}"] for n in (0, 2, 3)] == pytest.approx([600, 100, 200], abs=4)


def test_weights_of_single_pictures_from_a_column(tmp_path):
    values = {"0": 3, "1": "0", "2": "0.5", "3": ""}
    pictures = tuple(Picture(tmp_path / f"{name}.png", name, (8, 8), None, {"quality": value})
                     for name, value in values.items())
    material = weighted(Material(Concept(weight_column="quality"), pictures), tmp_path, "data.concepts.0")
    assert material.epoch == 4
    counts = Counter(draw.picture.sha256 for draw in seen(material, 900))
    assert [counts[name] for name in "0123"] == pytest.approx([600, 0, 100, 200], abs=4)
    for value in (-1, "many", float("nan"), True, [1]):
        wrong = Picture(tmp_path / "w.png", "w", (8, 8), None, {"quality": value})
        with pytest.raises(UserError, match=r"w\.png: its quality .* is not a weight"):
            weighted(Material(Concept(weight_column="quality"), (*pictures, wrong)), tmp_path, "data.concepts.0")
    with pytest.raises(UserError, match="a file and a column"):
        weighted(Material(Concept(weight_column="q", picture_weights="x"), pictures), tmp_path, "data.concepts.0")


@pytest.mark.parametrize(("files", "concept", "said"), [
    ({"a/multiply.txt": "many"}, {"weighting": "everydream"}, "multiply.txt: 'many' is not a number"),
    ({"a/flip_p.txt": "2"}, {"weighting": "everydream"}, "flip_p.txt: 2 is not a number from 0 to 1"),
    ({"a/local.yaml": "multiply: ["}, {"weighting": "everydream"}, "local.yaml"),
    ({}, {"weighting": "tree"}, "either group_weights or group_weights_file"),
    ({}, {"group_weights": {"a": 1}}, "group_weights: weights of groups are for weighting: tree"),
    ({}, {"weighting": "tree", "group_weights": {"aa": 1}}, "no folder of this name holds pictures; did you mean a"),
    ({}, {"weighting": "tree", "group_weights": {"a": -1}}, "-1 is not a weight"),
    ({"w.csv": "a, b, c"}, {"weighting": "tree", "group_weights_file": "w.csv"}, "line 1: 'a, b, c' is not a pattern"),
    ({}, {"weighting": "tree", "group_weights_file": "nowhere.csv"}, "nowhere.csv cannot be read"),
    ({"w.json": "[1]"}, {"picture_weights": "w.json"}, "holds no names with weights"),
    ({"w.json": '{"a": "x"}'}, {"picture_weights": "w.json"}, "'x' is not a weight"),
    ({"w.json": "{"}, {"picture_weights": "w.json"}, "cannot be read as JSON"),
])
def test_what_cannot_be_read_is_said_in_one_line(grouped, tmp_path, files, concept, said):
    files_of = ("group_weights_file", "picture_weights")
    places = {name: str(tmp_path / value) for name, value in concept.items() if name in files_of}
    with pytest.raises(UserError) as caught:
        grouped({"a": 2}, files, **concept | places)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_layouts_of_other_trainers_are_recognised(tmp_path):
    (tmp_path / "10_dog").mkdir()
    assert "weighting: kohya" in hint(tmp_path, Concept())
    assert hint(tmp_path, Concept(weighting="kohya")) == ""
    other = tmp_path / "10_dog"
    (other / "multiply.txt").write_text("2")
    assert "weighting: kohya" in hint(other, Concept())
