"""The run directory: settings, events, resumable state, pictures and checkpoints of one run.

    config.yaml     the settings as resolved, enough to run again
    events.jsonl    one JSON object a line, flushed
    state/          the resumable state, always one complete state on disk
    samples/        step-000500-00.png
    checkpoints/    NAME-000500.safetensors, NAME.safetensors
    embeddings/     likewise, where an embedding is trained
"""
from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.durable import safe_name, write_atomically
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Event, Phase, event_of
from lib_sdtrain.model.space import is_full
from lib_sdtrain.places import is_file
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING
from lib_sdtrain.train.results import SUFFIX, result_folder, result_stem

STATES = "state"
RUNS = "runs"


def new_run_path(outputs: Path, name: str) -> Path:
    """`outputs/runs/DATE-NAME`, numbered when it exists."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{safe_name(name)}"
    path = outputs / RUNS / stem
    number = 1
    while path.exists():
        number += 1
        path = outputs / RUNS / f"{stem}-{number}"
    return path


@dataclass(frozen=True)
class RunDir:
    """Paths of a run directory; its log names files wherever it is read from, so that none is relative."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.absolute())

    @property
    def outputs(self) -> Path:
        """The folder of all runs, which shares what is cached: the one over `runs`, else the one that it is in."""
        return self.path.parent.parent if self.path.parent.name == RUNS else self.path.parent

    @property
    def config(self) -> Path:
        """config.yaml"""
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        """events.jsonl"""
        return self.path / "events.jsonl"

    @property
    def samples(self) -> Path:
        """Preview pictures."""
        return self.path / "samples"

    @property
    def states(self) -> Path:
        """Resumable states."""
        return self.path / STATES

    @property
    def embeddings(self) -> Path:
        """Trained embeddings, unless save.embedding_dir says otherwise."""
        return self.path / "embeddings"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go unless save.dir says otherwise."""
        return self.path / "checkpoints"

    def result_file(self, settings: RunSettings, kind: str, step: int | None = None, suffix: str = "") -> Path:
        """NAME.safetensors, NAME-STEP.safetensors for one on the way, where the settings or this directory have it;
        with a form's suffix right behind the name.
        """
        own = self.embeddings if kind == EMBEDDING else self.checkpoints
        name = result_stem(settings, kind) + suffix + ("" if step is None else f"-{step:06d}")
        return (result_folder(settings, kind) or own) / f"{name}{SUFFIX}"

    def start(self, settings: RunSettings) -> None:
        """Make the directory and write config.yaml. Raises `UserError` when a state is already there."""
        if self.has_state():
            raise UserError(
                "this run directory already holds a run", where=str(self.path),
                fix=f"go on with: train --resume {self.path}, or choose another --run-dir",
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(settings)

    def write_config(self, settings: RunSettings) -> None:
        """Write config.yaml anew."""
        write_atomically(self.config, textfiles.write_yaml(to_plain(settings)).encode())

    def read_config(self) -> RunSettings:
        """The settings the run was started with. Raises `UserError` when this is no run directory."""
        if not is_file(self.config):
            raise UserError("no run directory (it has no config.yaml)", where=str(self.path), fix="check the path")
        return build(RunSettings, textfiles.read_mapping(self.config), where=str(self.config))

    def has_state(self) -> bool:
        """True when a resumable state stands here, or in the directory of a stage."""
        folders = [self.states, *self.path.glob(f"stage-*/{STATES}")]
        return any(any(folder.iterdir()) for folder in folders if folder.is_dir())

    def finished_steps(self) -> int:
        """The length at which the run came to its end with everything written, 0 when it never did."""
        results = (end.get("result") for end in self._told("finished"))
        return max((_whole(result.get("steps")) for result in results if isinstance(result, dict)), default=0)

    def validated(self, step: int) -> set[str]:
        """The names of the losses that validation has told of a step, and no crash has undone."""
        found: set[str] = set()
        for event in self._told("validation", "started"):
            if event["type"] == "started":
                found = found if _whole(event.get("step")) >= step else set()
            elif _whole(event.get("step")) == step:
                found.add(str(event.get("name")))
        return found

    def result_files(self) -> set[Path]:
        """Every model file that this run has told of."""
        return {Path(str(event.get("file"))) for event in self._told("saved") if event.get("kind") != "state"}

    def _told(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The events of some kinds in the log."""
        if not self.events.is_file():
            return
        beginnings = tuple(f'{{"type": "{kind}"' for kind in kinds)
        with self.events.open(encoding="utf-8", errors="replace") as log:
            for line in log:
                event = event_of(line) if line.startswith(beginnings) else None
                if event:
                    yield event

    def mend_log(self) -> None:
        """Take away the half line that a killed process left at the end of events.jsonl."""
        if self.events.is_file():
            content = self.events.read_bytes()
            if content and not content.endswith(b"\n"):
                os.truncate(self.events, content.rfind(b"\n") + 1)

    def log(self, event: Event, waiting: list[str]) -> None:
        """Append an event to events.jsonl (progress inside a phase only at its beginning and end).

        `waiting` are lines that a full disk did not take; they go first, and stay there when it still does not.
        """
        if isinstance(event, Phase) and event.done not in (1, event.total):
            return
        waiting.append(json.dumps(textfiles.plain_json(event.as_dict()), ensure_ascii=False) + "\n")
        before = self.events.stat().st_size if self.events.exists() else 0
        try:
            with self.events.open("a", encoding="utf-8") as file:
                file.write("".join(waiting))
        except OSError as error:
            if not is_full(error):
                raise
            os.truncate(self.events, before)
            return
        waiting.clear()


def _whole(value: Any) -> int:
    """A whole number of the log; 0 for anything else."""
    return value if isinstance(value, int) else 0


