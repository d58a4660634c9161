"""What DreamBooth on toybox's subject teaches, and what it costs the class, with and without prior preservation."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.events import CancelToken, Event, Finished
from lib_sdtrain.presets import read_preset
from lib_sdtrain.quality.drawing import Drawn
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.toybox.captions import PLACES, sentence
from lib_sdtrain.toybox.judge import subject_fidelity
from lib_sdtrain.toybox.scene import BACKGROUNDS, Scene
from lib_sdtrain.toybox.testdata import NAME, SUBJECT_KIND, SUBJECT_PICTURES, class_scene, subject_scene

PRESET = "toybox-dreambooth"
POSES = ("", "facing left", "facing right")
SIZES = ("", "small ", "big ")
CLASS_PROMPTS = 24
#: Class pictures that training has not seen come after its own.
FIRST_CLASS_SCENE = 1000


@dataclass(frozen=True)
class Trained:
    """A run's result: the checkpoint and its seconds."""

    checkpoint: Path
    seconds: float


def new_places() -> list[str]:
    """Places that none of the subject's pictures shows."""
    shown = {subject_scene(index).background for index in range(SUBJECT_PICTURES)}
    return [place for place in BACKGROUNDS if place not in shown]


def subject_prompts() -> list[str]:
    """The subject in new places, in every size and pose."""
    return [
        " ".join(part for part in (f"a photo of {size}{NAME} {SUBJECT_KIND}", pose, PLACES[place]) if part)
        for place in new_places() for size in SIZES for pose in POSES
    ]


def class_scenes() -> list[Scene]:
    """Ordinary members of the class, of every colour that the base model was taught."""
    return [class_scene(FIRST_CLASS_SCENE + index) for index in range(CLASS_PROMPTS)]


def class_prompts() -> list[str]:
    """What they are called."""
    return [sentence(scene) for scene in class_scenes()]


def fidelity(drawn: Sequence[Drawn]) -> float:
    """Share of pictures that show the subject: its kind, with its marks."""
    return subject_fidelity([reading for one in drawn for reading in one.readings])


def retention(drawn: Sequence[Drawn]) -> float:
    """Share of the class's pictures that are of the kind and colour asked for and do not carry the subject's marks."""
    kept = [
        reading.kind == scene.kind and reading.colour == scene.colour and not reading.marked
        for scene, one in zip(class_scenes(), drawn, strict=True) for reading in one.readings
    ]
    return sum(kept) / len(kept)


def train_subject(folder: Path, checkpoint: str, preserve: bool, token: CancelToken) -> Iterator[Event]:
    """Train `checkpoint` by the preset into `folder`, without class pictures unless `preserve`; returns `Trained`.

    Raises what `train` raises.
    """
    from lib_sdtrain.train.loop import train
    from lib_sdtrain.train.starting import pick_device, resolve_run

    changes: dict[str, Any] = {"model.checkpoint": checkpoint, "preview.prompts": []}
    if not preserve:
        changes |= {"data.concepts.0.class_dir": "", "data.concepts.0.class_prompt": ""}
    layers = [Layer(f"preset {PRESET}", read_preset(PRESET), gives_way=True), Layer("measurement", changes)]
    for event in train(resolve_run(layers, pick_device()).settings, token, run_dir=folder):
        if isinstance(event, Finished):
            return Trained(Path(event.result["checkpoint"]), float(event.result["seconds"]))
        yield event
    token.check()
    raise AssertionError("a run ended without a result")
