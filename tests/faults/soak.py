"""Many short runs and merges in one process: handles, threads and memory stay as they are."""
from __future__ import annotations

import gc
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from lib_sdtrain.events import CancelToken, Step
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.loop import train
from lib_sdtrain.train.resume import resume
from tests.faults.work import Merge

Piece = Callable[[], None]


@dataclass(frozen=True)
class Usage:
    """What the process holds: open files, threads of Python and of the system, mapped files, objects that the garbage
    collector knows, pieces of memory that Python gave to any object, bytes in all.
    """

    files: int
    threads: int
    system_threads: int
    maps: int
    objects: int
    blocks: int
    resident: int


def usage() -> Usage:
    """As it is now, after a collection."""
    gc.collect()
    process = psutil.Process()
    maps = sum(bool(row.path) and row.path[0] != "[" for row in process.memory_maps(grouped=False))
    return Usage(process.num_fds(), threading.active_count(), process.num_threads(), maps,
                 len(gc.get_objects()), sys.getallocatedblocks(), process.memory_info().rss)  # fmt: skip


def measured(work: Piece, warm_up: int, count: int, rounds: int = 1) -> Iterator[Usage]:
    """The usage after `warm_up` pieces of work, then `rounds` times after `count` more."""
    for _ in range(warm_up):
        work()
    yield usage()
    for _ in range(rounds):
        for _ in range(count):
            work()
        yield usage()


@dataclass
class Runs:
    """Short runs in turn: whole, stopped and gone on with, a LoRA, and one that is broken off. Each leaves nothing."""

    checkpoint: Path
    pictures: Path
    folder: Path
    number: int = 0

    def __call__(self) -> None:
        """One of them."""
        self.number += 1
        run = self.folder / "runs" / "run"
        kind = self.number % 4
        if kind == 1:
            stopped(train(self._settings(), token := CancelToken(), run, self.folder, "cpu"), token)
            list(resume(run, device="cpu"))
        elif kind == 3:
            events = train(self._settings(), run_dir=run, outputs=self.folder, device="cpu")
            next(event for event in events if isinstance(event, Step))
            events.close()
        else:
            settings = self._settings("lora" if kind == 2 else "full")
            list(train(settings, run_dir=run, outputs=self.folder, device="cpu"))
        shutil.rmtree(run)

    def _settings(self, kind: str = "full") -> RunSettings:
        concept = {
            "name": "sks", "instance_dir": str(self.pictures), "instance_prompt": "sks dog",
            "class_dir": str(self.folder / "class"), "class_prompt": "dog", "num_class_images": 1,
        }
        values = {
            "model.checkpoint": str(self.checkpoint), "data.resolution": "64", "data.concepts": [concept],
            "data.cache_latents": "disk", "method.kind": kind, "method.rank": 2, "train.length": 2,
            "method.train_unet": kind == "lora",  # the smaller half: states are written faster
            "save.state_every": 1, "preview.prompts": [{"prompt": "x", "steps": 1, "width": 64, "height": 64}],
        }
        return resolve(RunSettings, [Layer("test", values)]).settings


def stopped(events: Iterator, token: CancelToken) -> None:
    """Run, asking to save and stop after the first step."""
    for event in events:
        if isinstance(event, Step):
            token.stop_and_save()


@dataclass
class Merges:
    """A block merge after the other into the same file, and every fourth is broken off midway."""

    work: Merge
    number: int = 0

    def __call__(self) -> None:
        """One of them."""
        self.number += 1
        events = self.work.events()
        if self.number % 4:
            list(events)
        else:
            next(events)
            events.close()
