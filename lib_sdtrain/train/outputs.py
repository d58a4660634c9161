"""What a run writes: checkpoints in the parent's own layout, resumable states, and the final document."""
from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil
import torch

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.events import CancelToken, Event, Notice, Saved
from lib_sdtrain.model.metadata import Parent, parent_of
from lib_sdtrain.model.writer import Written
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.run_method import EMBEDDING, LORA
from lib_sdtrain.train.child import write_child
from lib_sdtrain.train.data_plan import beyond_pictures
from lib_sdtrain.train.embedding_file import write_embedding
from lib_sdtrain.train.forms import Form
from lib_sdtrain.train.lora_file import write_lora
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.results import CHECKPOINT, written
from lib_sdtrain.train.room import with_room
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.state import State
from lib_sdtrain.train.state_writer import StateWriter
from lib_sdtrain.train.trainer import Trainer

NO_COPY = (
    "main memory has no room for a copy of the state: training waits while it is written; a larger save.state_every "
    "makes it wait less often"
)

OTHER_FORMAT = "go on with the run with --set save.also=[...], where the form has another; its saved state is good"

WRITERS = {CHECKPOINT: write_child, LORA: write_lora, EMBEDDING: write_embedding}
"""What writes a kind of file: (plan, trainer, file, parents) -> Written."""


class Outputs:
    """Writes the files of a run and remembers what was written at which step; `saved_at`: the state's on disk.

    `close` must be called at the end: a state may still be on its way to the disk.
    """

    def __init__(self, plan: Plan, run: RunDir, trainer: Trainer, saved_at: int | None = None) -> None:
        self.plan, self.run, self.trainer = plan, run, trainer
        self.began = time.monotonic()
        self.results: dict[str, Saved] = {}
        self.also: list[Saved] = []
        self.state_step = saved_at
        self._states = StateWriter(run.states)
        self._said_no_copy = False

    @cached_property
    def parents(self) -> dict[str, Parent]:
        """What the result descends from, hashed once a run."""
        return parents_of(self.plan)

    def save_checkpoint(self, token: CancelToken, final: bool = False) -> Iterator[Event]:
        """Write NAME-STEP.safetensors, or NAME.safetensors at the end, in all its forms, and the embedding where one is
        trained. A full disk is waited for.
        """
        settings, step = self.plan.settings, self.trainer.step
        self.also = []
        for kind, form in written(settings):
            out = self.run.result_file(settings, kind, None if final else step, form.suffix)
            done = yield from with_room(partial(self._write, kind, form, out), out.parent, token)
            saved = Saved(file=str(done.path), kind=kind, step=step, sha256=done.sha256)
            if form.suffix:
                self.also.append(saved)
            else:
                self.results[kind] = saved
            yield saved

    def _write(self, kind: str, form: Form, out: Path) -> Written:
        try:
            return WRITERS[kind](replace(self.plan, settings=form.settings), self.trainer, out, self.parents)
        except JobFailed as error:
            if error.problem.where != Form.dtype_at or form.dtype_at == Form.dtype_at:
                raise
            raise JobFailed(error.problem.what, form.dtype_at, OTHER_FORMAT) from error

    def save_state(self, token: CancelToken, wait: bool = False) -> Iterator[Event]:
        """Begin to write the state that a later run goes on from, once a step; with `wait` it stands at the end.

        A state that is still being written is waited for, and so is a full disk.
        """
        yield from self.settle_state(token)
        step = self.trainer.step
        if self.state_step == step:
            return
        state = self._state()
        copy = not wait and self._states.can_copy(state)
        if not (wait or copy or self._said_no_copy):
            self._said_no_copy = True
            yield Notice(text=NO_COPY, where=str(self.run.states))
        yield from with_room(lambda: self._states.begin(step, state, copy=copy), self.run.states, token)
        self.state_step = step
        if not copy:
            yield from self.settle_state(token)

    def settle_state(self, token: CancelToken, wait: bool = True) -> Iterator[Event]:
        """Tell of the state that is being written when it stands. Raises what keeps it from that.

        Without `wait` nothing happens while its writer is at work. A full disk is waited for.
        """
        step = self._states.pending
        if step is None or not (wait or self._states.settled):
            return
        folder = yield from with_room(self._states.finish, self.run.states, token)
        yield Saved(file=str(folder), kind="state", step=step)

    def close(self) -> None:
        """Wait for what is being written."""
        self._states.close()

    def _state(self) -> State:
        self.trainer.check_weights()
        state = self.trainer.state()
        facts = {
            "settings": to_plain(self.plan.settings), "data": data_facts(self.plan), "beyond": beyond_hash(self.plan),
            "parents": {role: parent.sha256 for role, parent in self.parents.items()}, "earlier": self.plan.earlier,
        }
        return State({**state.facts, **facts}, state.tensors)

    def document(self, steps_per_second: float) -> dict[str, Any]:
        """What `train --json` prints."""
        result = next(reversed(self.results.values()), None)
        embedding = self.results.get(EMBEDDING)
        return {
            "run_dir": str(self.run.path),
            "steps": self.trainer.step,
            "checkpoint": result.file if result else None,
            "sha256": result.sha256 if result else None,
            **({"also": [{"file": form.file, "sha256": form.sha256} for form in self.also]} if self.also else {}),
            **({"embedding": embedding.file} if embedding else {}),
            "seconds": round(time.monotonic() - self.began, 3),
            "steps_per_second": round(steps_per_second, 4),
            "peak_memory_bytes": peak_memory(self.plan.device),
        }


def peak_memory(device: str) -> int:
    """Bytes at the peak so far: allocated on the CUDA device, else resident in this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def parents_of(plan: Plan) -> dict[str, Parent]:
    """The files that a run stands on, by their role, hashed."""
    checkpoint, vae = plan.checkpoint, plan.settings.model.vae
    found = {"checkpoint": parent_of(checkpoint.path, checkpoint.tensors.metadata)}
    return found | ({"vae": parent_of(Path(vae).expanduser(), {})} if vae else {})


def beyond_hash(plan: Plan) -> str:
    """A hash of what else decides what is learnt: weights of pictures, masks, boxes, scores, other names of tags."""
    return hashlib.sha256(json.dumps(beyond_pictures(plan), ensure_ascii=False).encode()).hexdigest()


def data_facts(plan: Plan) -> list[dict[str, Any]]:
    """What was trained on: each concept's pictures by content, with the words of each."""
    return [
        {
            "name": material.concept.name,
            "pictures": [[picture.sha256, picture.caption] for picture in material.pictures],
            "class_pictures": [[picture.sha256, picture.caption] for picture in material.class_pictures],
        }
        for material in plan.materials
    ]
