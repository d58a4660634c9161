"""The numbers of `bench quality`, on pictures whose truth is known: the world's own renderings."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.quality import dreambooth, prompts, sheets, showcase, spread
from lib_sdtrain.quality.drawing import Drawn
from lib_sdtrain.quality.measure import Report
from lib_sdtrain.toybox.judge import read, shipped_judge
from lib_sdtrain.toybox.testdata import SUBJECT_COLOUR, SUBJECT_KIND, subject_scene
from lib_sdtrain.toybox.world import render


@pytest.fixture(scope="module")
def judge():
    return shipped_judge()


def drawn(judge, prompt, scenes):
    pictures = tuple(render(scene) for scene in scenes)
    return Drawn(prompt, pictures, tuple(read(judge, pictures)))


@pytest.mark.parametrize("held_out", [False, True])
def test_a_model_that_draws_as_the_world_does_is_right_everywhere(judge, held_out):
    scenes = prompts.prompted_scenes(held_out, 12)
    assert all(scene.held_out == held_out for scene in scenes)
    found = prompts.shares(scenes, [drawn(judge, "", [scene, replace(scene, detail=7)]) for scene in scenes])
    assert min(found.values()) >= 0.95, found


def test_a_property_that_is_never_as_asked_is_never_counted(judge):
    scenes = prompts.prompted_scenes(False, 6)
    wrong = [replace(scene, colour="blue" if scene.colour != "blue" else "red") for scene in scenes]
    found = prompts.shares(scenes, [drawn(judge, "", [scene]) for scene in wrong])
    assert found["colour"] == 0
    assert found["kind"] == 1


def test_the_subject_is_asked_for_in_places_that_its_pictures_do_not_show():
    shown = {subject_scene(index).background for index in range(8)}
    assert dreambooth.new_places()
    assert not shown & set(dreambooth.new_places())
    asked = dreambooth.subject_prompts()
    assert len(set(asked)) == len(asked) == 9 * len(dreambooth.new_places())
    assert "a photo of sks cat in the snow" in asked


def test_fidelity_and_retention_are_opposites(judge):
    scenes = dreambooth.class_scenes()
    kept = [drawn(judge, "", [scene]) for scene in scenes]
    lost = [
        drawn(judge, "", [replace(scene, kind=SUBJECT_KIND, colour=SUBJECT_COLOUR, marked=True)]) for scene in scenes
    ]
    assert dreambooth.retention(kept) >= 0.95
    assert dreambooth.retention(lost) <= 0.05
    assert dreambooth.fidelity(lost) >= 0.95
    assert dreambooth.fidelity(kept) <= 0.05


def test_distances_are_those_of_the_textbook():
    black, grey = (Image.new("RGB", (64, 64), (value,) * 3) for value in (0, 51))
    assert spread.distance(spread.small(black), spread.small(grey)) == pytest.approx(0.2)
    assert spread.diversity([[black, grey], [black, black]]) == pytest.approx(0.1)
    points = np.stack([spread.small(black), spread.small(grey)])
    assert spread.nearest(points, points[1:]) == pytest.approx([0.2, 0.0], abs=1e-4)


def test_copies_of_training_pictures_are_near_and_fresh_ones_are_not(judge):
    trained = prompts.prompted_scenes(False, 8)
    fresh = [picture for group in spread.renderings_like(trained, 2) for picture in group]
    training = np.stack([spread.small(render(scene)) for scene in trained])
    own, others = spread.memorisation([drawn(judge, "", trained)], fresh, training)
    assert own < 1e-3 < others


def test_a_report_tells_ratios_where_there_are_any():
    report = Report()
    report.add("a", 1, 2, 3, "at least")
    report.add("b", 1, 0, 3, "nothing")
    assert report.document()["a"] == {"ours": 1.0, "baseline": 2.0, "runs": 3, "against": "at least", "ratio": 0.5}
    assert report.document()["b"]["ratio"] is None


def test_a_sheet_holds_every_picture_in_its_row():
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    sheet = sheets.contact_sheet([("one", [red, blue]), ("two", [blue, red])], cell=10)
    left, right = sheets.GAP + 5, 2 * sheets.GAP + 10 + 5
    first = sheets.GAP + sheets.LABEL + 5
    second = first + sheets.LABEL + 10 + sheets.GAP
    found = [sheet.getpixel((x, y)) for y in (first, second) for x in (left, right)]
    assert found == [(255, 0, 0), (0, 0, 255), (0, 0, 255), (255, 0, 0)]


def test_the_rows_of_the_merge_sheet_go_from_nothing_to_everything():
    rows = {title: text.split(",") for title, text in showcase.block_weights().items()}
    assert all(len(numbers) == 26 for numbers in rows.values())
    assert set(rows["toybox"]) == {"0"}
    assert set(rows["all of it"]) == {"1"}
    assert rows["BASE and OUT"] == ["1"] + ["0"] * 13 + ["1"] * 12
