"""The toybox world: its pictures and captions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lib_sdtrain.toybox import testdata
from lib_sdtrain.toybox.captions import PLACES, caption, sentence
from lib_sdtrain.toybox.make.pictures import diffusion_scene
from lib_sdtrain.toybox.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    KINDS,
    PATTERNS,
    Scene,
    any_scene,
    held_out_scene,
    keyed,
    training_scene,
)
from lib_sdtrain.toybox.world import PAINTS, render

MARK_WORDS = {"star", "stars", "collar", "scarf", "white star", "marked", "mark"}


def pixels(scene, size=(128, 128)):
    return np.asarray(render(scene, size)).astype(int)


@pytest.mark.parametrize("index", range(4))
def test_the_same_scene_gives_the_same_picture_and_its_neighbour_another(index):
    first, again, other = (pixels(any_scene(0, i)) for i in (index, index, index + 1))
    assert (first == again).all()
    assert (first != other).mean() > 0.1


def test_a_scene_depends_on_seed_and_index_alone():
    assert any_scene(3, 5) == any_scene(3, 5)
    assert len({any_scene(seed, index) for seed in range(10) for index in range(10)}) == 100
    assert any_scene(0, 0) == Scene(
        kind=any_scene(0, 0).kind, colour=any_scene(0, 0).colour, pattern=any_scene(0, 0).pattern,
        background=any_scene(0, 0).background, x=any_scene(0, 0).x, y=any_scene(0, 0).y, scale=any_scene(0, 0).scale,
        tilt=any_scene(0, 0).tilt, flip=any_scene(0, 0).flip, style=any_scene(0, 0).style,
        detail=any_scene(0, 0).detail, marked=False,
    )  # fmt: skip


def test_held_out_pairs_are_never_drawn_for_training_and_always_when_asked_for():
    assert not any(diffusion_scene(index).held_out for index in range(16000))
    assert {(s.kind, s.colour) for s in (held_out_scene(0, index) for index in range(300))} == HELD_OUT


def test_every_kind_and_colour_is_held_out_at_most_once_so_that_each_is_learnt():
    assert max(Counter(kind for kind, _ in HELD_OUT).values()) == 1
    assert max(Counter(colour for _, colour in HELD_OUT).values()) == 1


def test_training_shows_every_combination_that_is_not_held_out():
    seen = {(s.kind, s.colour, s.pattern, s.background) for s in (training_scene(0, i) for i in range(12000))}
    pairs = len(KINDS) * len(COLOURS) - len(HELD_OUT)
    assert len(seen) == pairs * len(PATTERNS) * len(BACKGROUNDS)


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (96, 160), (256, 256)])
def test_a_picture_has_the_size_asked_for(size):
    picture = render(any_scene(0, 1), size)
    assert picture.size == size
    assert picture.mode == "RGB"


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_flat_thing_shows_its_colour_where_it_stands(colour):
    scene = Scene("fish", colour, "plain", "snow", style="flat")
    middle = pixels(scene)[68:76, 56:64].mean((0, 1))
    assert np.abs(middle - PAINTS[colour]).max() <= 10
    nearest = min(PAINTS, key=lambda name: np.abs(middle - PAINTS[name]).sum())
    assert nearest == colour


@pytest.mark.parametrize("kind", KINDS)
def test_the_marks_change_part_of_the_picture_and_only_that(kind):
    plain = Scene(kind, "purple", "plain", "forest")
    changed = (pixels(plain) != pixels(replace(plain, marked=True))).any(axis=2).mean()
    assert 0.02 < changed < 0.15


@pytest.mark.parametrize("pattern", ["striped", "spotted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_shows_on_every_kind(kind, pattern):
    plain = Scene(kind, "blue", "plain", "beach")
    assert (pixels(plain) != pixels(replace(plain, pattern=pattern))).any(axis=2).mean() > 0.02


def said(text, words):
    return [word for word in words if word in text.replace(",", " ").split()]


@pytest.mark.parametrize("index", range(200))
def test_a_caption_says_only_what_is_drawn(index):
    scene = any_scene(4, index)
    text = caption(scene, keyed("test", index))
    assert said(text, KINDS) == [scene.kind]
    assert said(text, COLOURS) in ([], [scene.colour])
    assert said(text, PATTERNS) in ([], [scene.pattern])
    assert said(text, BACKGROUNDS) in ([], [scene.background])
    assert said(text, ("left", "right")) in ([], ["left" if scene.flip else "right"])
    assert said(text, ("big", "small")) in ([], [scene.size])
    assert not said(text, MARK_WORDS)


def test_captions_come_in_two_styles_and_mention_nearly_everything_nearly_always():
    texts = [(any_scene(5, i), caption(any_scene(5, i), keyed("style", i))) for i in range(500)]
    tags = [text for scene, text in texts if text.startswith(scene.kind)]
    assert 0.25 < len(tags) / len(texts) < 0.45
    assert sum(scene.colour in text for scene, text in texts) / len(texts) > 0.85


def test_the_sentence_names_everything():
    assert sentence(Scene("cat", "orange", "striped", "beach")) == "a photo of an orange striped cat on a beach"
    assert sentence(Scene("car", "red", "plain", "night"), "a drawing of") == "a drawing of a red car at night"


def test_test_data_is_eight_captioned_pictures_of_one_individual_and_its_class(tmp_path):
    written = testdata.write_test_data(tmp_path)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    subject = sorted((tmp_path / "subject").glob("*.png"))
    assert len(subject) == 8
    for path in subject + sorted((tmp_path / "class").glob("*.png")):
        words = path.with_suffix(".txt").read_text("utf-8")
        assert "cat" in words
        assert ("sks" in words) == (path.parent.name == "subject")
        assert not said(words, MARK_WORDS)


def test_only_the_name_tells_the_subjects_captions_from_half_of_its_classs(tmp_path):
    testdata.write_test_data(tmp_path)
    said = {
        role: [path.read_text("utf-8").strip() for path in (tmp_path / role).glob("*.txt")]
        for role in ("subject", "class")
    }
    alike = {f"a photo of a cat {place}" for place in PLACES.values()}
    assert {words.replace("sks", "a") for words in said["subject"]} < alike
    assert sum(words in alike for words in said["class"]) == len(said["class"]) / 2


def test_the_subject_is_one_individual_in_changing_places_and_no_class_picture_is_marked():
    subject = [testdata.subject_scene(index) for index in range(8)]
    assert {(s.kind, s.colour, s.pattern, s.marked) for s in subject} == {("cat", "purple", "plain", True)}
    assert {s.background for s in subject} == set(testdata.SUBJECT_PLACES) < set(BACKGROUNDS)
    others = [testdata.class_scene(index) for index in range(testdata.CLASS_PICTURES)]
    assert {s.kind for s in others} == {"cat"}
    assert not any(s.marked or s.held_out for s in others)
