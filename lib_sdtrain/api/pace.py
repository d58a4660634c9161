"""How fast runs go on this machine: measured while they run, kept with the outputs, used to foresee the next one."""
from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.durable import write_atomically
from lib_sdtrain.events import Event, Preview, Saved, Step
from lib_sdtrain.settings.run import RunSettings

FEWEST_STEPS = 5  # the first step is slower than the rest, and one of few says little
KEPT = 100
STEP, PREVIEW, CLASS_PICTURE, REST = "step", "preview", "class_picture", "rest"

logger = logging.getLogger(__name__)


@dataclass
class Stopwatch:
    """Counts the seconds that a run's events took, by what was done."""

    spent: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _last: float | None = None

    def observe(self, event: Event, now: float) -> None:
        """The time since the event before goes to what this event tells of; `now` in seconds of any clock."""
        if self._last is not None:
            kind = _kind(event)
            if kind == STEP and not self.counts.get(STEP):
                self.spent[REST] = self.spent.get(REST, 0.0) + now - self._last  # warming up
            else:
                self.spent[kind] = self.spent.get(kind, 0.0) + now - self._last
            self.counts[kind] = self.counts.get(kind, 0) + 1
        self._last = now

    def measured(self) -> dict[str, float]:
        """Seconds a step, a preview picture, a class picture, and for all the rest; empty after too few steps."""
        steps = self.counts.get(STEP, 0)
        if steps < FEWEST_STEPS:
            return {}
        found = {STEP: self.spent[STEP] / (steps - 1), REST: self.spent.get(REST, 0.0)}
        return found | {kind: self.spent[kind] / self.counts[kind]
                        for kind in (PREVIEW, CLASS_PICTURE) if self.counts.get(kind)}  # fmt: skip


def _kind(event: Event) -> str:
    if isinstance(event, Step):
        return STEP
    if isinstance(event, Preview):
        return PREVIEW
    return CLASS_PICTURE if isinstance(event, Saved) and event.kind == "picture" else REST


@dataclass(frozen=True)
class PaceBook:
    """What was measured, by workload, in one small file."""

    file: Path

    def measuring(self, workload: str, events: Iterator[Event]) -> Iterator[Event]:
        """Pass a run's events on and remember its pace at the end, however it ends."""
        watch = Stopwatch()
        try:
            for event in events:
                watch.observe(event, time.monotonic())
                yield event
        finally:
            found = watch.measured()
            if found and workload:
                self._remember(workload, found)

    def seconds(self, workload: str, amounts: Mapping[str, int]) -> float | None:
        """How long a run will take with `amounts` of steps and pictures; None when something was never measured."""
        known = self._read().get(workload)
        if not isinstance(known, dict):
            return None
        total = known.get(REST, 0.0)
        for kind, amount in amounts.items():
            if amount and kind not in known:
                return None
            total += amount * known.get(kind, 0.0)
        return total

    def _remember(self, workload: str, found: Mapping[str, float]) -> None:
        book = self._read()
        book[workload] = {**(book.pop(workload, None) or {}), **found}
        newest = dict(list(book.items())[-KEPT:])
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(newest, indent=1).encode())
        except OSError as error:  # a run that ended well must not fail for it
            logger.warning("the pace of this run cannot be remembered: %s", error)

    def _read(self) -> dict[str, Any]:
        try:
            book = json.loads(self.file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # nothing was measured yet, or nothing that can be read
        return book if isinstance(book, dict) else {}


def amounts(settings: RunSettings, document: Mapping[str, Any]) -> dict[str, int]:
    """How many steps, preview pictures and class pictures the dry run's document foresees."""
    steps, pictures = int(document["steps"]), max(1, int(document["images"]))
    batch = settings.train.batch_size * settings.train.gradient_accumulation_steps
    every = settings.preview.every.steps(batch, pictures) if settings.preview.every else 0
    times = 2 + ((steps - 1) // every if every else 0)  # the beginning and the end always
    made = sum(concept.get("class_images_to_make", 0) for concept in document.get("concepts", ()))
    return {STEP: steps, PREVIEW: times * len(settings.preview.prompts), CLASS_PICTURE: made}
