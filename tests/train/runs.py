"""Small runs for tests: settings, and driving the engine's generator."""
from __future__ import annotations

from pathlib import Path

from lib_sdtrain.events import CancelToken, Event, Step
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings


def run_settings(checkpoint: Path, instance: Path, class_dir: Path | None = None, **changes: object) -> RunSettings:
    """Settings of a run at 64 pixels; `changes` are dotted paths with `__` for the dots."""
    concept = {"name": "sks", "instance_dir": str(instance), "instance_prompt": "a photo of sks dog"}
    if class_dir:
        concept |= {"class_dir": str(class_dir), "class_prompt": "a photo of a dog", "num_class_images": 3}
    values = {
        "model.checkpoint": str(checkpoint), "data.resolution": "64", "data.concepts": [concept], "train.length": 4,
        "train.learning_rate": 1e-3,
    }
    own = {key.replace("__", "."): value for key, value in changes.items()}
    return resolve(RunSettings, [Layer("test", {**values, **own})]).settings


def finish(events, token: CancelToken | None = None, stop_at: int | None = None) -> list[Event]:
    """Run to the end, asking to stop and save after a step."""
    seen = []
    for event in events:
        seen.append(event)
        if token and isinstance(event, Step) and event.step == stop_at:
            token.stop_and_save()
    return seen


def of_kind(seen: list[Event], kind: type) -> list[Event]:
    """The events of a kind."""
    return [event for event in seen if isinstance(event, kind)]
