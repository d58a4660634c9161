"""Curves for TensorBoard and Weights & Biases, where their packages are installed."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from lib_sdtrain.errors import Problems
from lib_sdtrain.events import Event, Step, Validation
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.run_dir import RunDir

Write = Callable[[str, float, int], None]
"""write(name of a curve, value, step)"""


def check_boards(settings: RunSettings, problems: Problems) -> None:
    """Add each board that is asked for and whose package is missing."""
    for name in ("tensorboard", "wandb"):
        if getattr(settings.log, name) and find_spec(name) is None:
            problems.add(
                f"the package {name} is not installed", where=f"log.{name}",
                fix=f"pip install {name}, or set it to false; the curves are in the tab and in events.jsonl anyway",
            )


@contextmanager
def boards(settings: RunSettings, run: RunDir) -> Iterator[Callable[[Event], None]]:
    """While open, `tell(event)` writes an event's numbers to every board that is asked for."""
    writers: list[Write] = []
    closing: list[Callable[[], None]] = []
    if settings.log.tensorboard:
        summary = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(run.path / "tensorboard"))
        writers.append(summary.add_scalar)
        closing.append(summary.close)
    if settings.log.wandb:
        started = importlib.import_module("wandb").init(
            project="sdtrain", name=run.path.name, dir=str(run.path), config=to_plain(settings), reinit=True
        )
        writers.append(lambda name, value, step: started.log({name: value}, step=step))
        closing.append(started.finish)

    def tell(event: Event) -> None:
        for name, value, step in numbers(event):
            for write in writers:
                write(name, value, step)

    try:
        yield tell
    finally:
        for close in closing:
            close()


def numbers(event: Event) -> list[tuple[str, float, int]]:
    """(curve, value, step) of what an event tells."""
    if isinstance(event, Step):
        curves = {"loss": event.loss, "loss/smoothed": event.smoothed, "learning_rate": event.lr}
        return [(name, value, event.step) for name, value in curves.items()]
    if isinstance(event, Validation):
        return [(f"loss/{event.name}", event.loss, event.step)]
    return []
