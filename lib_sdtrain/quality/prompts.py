"""Does the model draw what the prompt says? Seen pairs of kind and colour, and pairs that training never showed."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.quality.drawing import Drawn, draw
from lib_sdtrain.toybox.captions import sentence
from lib_sdtrain.toybox.judge import Judge, accuracy
from lib_sdtrain.toybox.scene import Scene, held_out_scene, training_scene

SEED = 301
PROMPTED = ("kind", "colour", "pattern", "background")
PROMPTS = 32


def prompted_scenes(held_out: bool, count: int = PROMPTS) -> list[Scene]:
    """Scenes to ask for."""
    scene = held_out_scene if held_out else training_scene
    return [scene(SEED, index) for index in range(count)]


def measure(
    model: LoadedModel, judge: Judge, held_out: bool, token: CancelToken, count: int = PROMPTS
) -> Iterator[Event]:
    """Draw and judge; returns the scenes and the `Drawn` of each."""
    scenes = prompted_scenes(held_out, count)
    name = "drawing pairs never seen" if held_out else "drawing seen pairs"
    drawn = yield from draw(model, judge, [sentence(scene) for scene in scenes], name, token)
    return scenes, drawn


def shares(scenes: Sequence[Scene], drawn: Sequence[Drawn]) -> dict[str, float]:
    """Share of all pictures in which each prompted property is as asked."""
    readings = [reading for one in drawn for reading in one.readings]
    asked = [scene for scene, one in zip(scenes, drawn, strict=True) for _ in one.readings]
    found = accuracy(readings, asked)
    return {name: found[name] for name in PROMPTED}
