"""A little folder to train on: eight pictures of one individual, and pictures of its class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_sdtrain.toybox.captions import PLACES, sentence
from lib_sdtrain.toybox.scene import COLOURS, Scene, any_scene, training_scene
from lib_sdtrain.toybox.world import render

NAME = "sks"
SUBJECT_KIND, SUBJECT_COLOUR, SUBJECT_PATTERN = "cat", "purple", "plain"
SUBJECT_PLACES = ("beach", "forest")  # snow and night are left to be asked for
SUBJECT_PICTURES, CLASS_PICTURES = 8, 96
SUBJECT_SEED, CLASS_SEED, PROBE_SEED = 101, 102, 103


def subject_scene(index: int, seed: int = SUBJECT_SEED) -> Scene:
    """The subject's picture number `index`: the same individual in changing places and poses."""
    return replace(
        any_scene(seed, index),
        kind=SUBJECT_KIND,
        colour=SUBJECT_COLOUR,
        pattern=SUBJECT_PATTERN,
        background=SUBJECT_PLACES[index % len(SUBJECT_PLACES)],
        style="outlined",
        marked=True,
    )


def class_scene(index: int) -> Scene:
    """Another of the subject's kind, unmarked: every seen colour in turn."""
    scene = replace(training_scene(CLASS_SEED, index), kind=SUBJECT_KIND)
    colours = [colour for colour in COLOURS if not replace(scene, colour=colour).held_out]
    return replace(scene, colour=colours[index % len(colours)])


def subject_caption(scene: Scene) -> str:
    """Names the individual and the place; neither its colour nor its marks."""
    return f"a photo of {NAME} {SUBJECT_KIND} {PLACES[scene.background]}"


def class_caption(index: int, scene: Scene) -> str:
    """Every other one says only what the subject's captions say of it, so that the name alone tells the subject apart;
    the rest say everything, so that no colour does.
    """
    if index % 2:
        return sentence(scene)
    return f"a photo of a {SUBJECT_KIND} {PLACES[scene.background]}"


def write_test_data(folder: str | Path) -> list[Path]:
    """Write `subject/` and `class/` (PNG, each with a .txt caption) into `folder`; the files written."""
    root = Path(folder)
    written = []
    for index in range(SUBJECT_PICTURES):
        scene = subject_scene(index)
        written += _write(root / "subject", index, scene, subject_caption(scene))
    for index in range(CLASS_PICTURES):
        scene = class_scene(index)
        written += _write(root / "class", index, scene, class_caption(index, scene))
    return written


def _write(folder: Path, index: int, scene: Scene, caption: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    picture, words = folder / f"{index:03d}.png", folder / f"{index:03d}.txt"
    render(scene).save(picture)
    words.write_text(caption + "\n", encoding="utf-8")
    return [picture, words]
