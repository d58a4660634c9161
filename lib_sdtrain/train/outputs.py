"""What a run writes: checkpoints in the parent's own layout, resumable states, and the final document."""
from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch

from lib_sdtrain.events import CancelToken, Event, Saved
from lib_sdtrain.model.metadata import Parent, parent_of
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.train.child import write_child
from lib_sdtrain.train.lora_file import write_lora
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.room import with_room
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.starting import LORA
from lib_sdtrain.train.state import State, save_state
from lib_sdtrain.train.trainer import Trainer


class Outputs:
    """Writes the files of a run and remembers what was written at which step; `saved_at`: the state's on disk."""

    def __init__(self, plan: Plan, run: RunDir, trainer: Trainer, saved_at: int | None = None) -> None:
        self.plan, self.run, self.trainer = plan, run, trainer
        self.began = time.monotonic()
        self.checkpoint: Saved | None = None
        self.state_step = saved_at

    @cached_property
    def parents(self) -> dict[str, Parent]:
        """What the result descends from, hashed once a run."""
        checkpoint, vae = self.plan.checkpoint, self.plan.settings.model.vae
        found = {"checkpoint": parent_of(checkpoint.path, checkpoint.tensors.metadata)}
        return found | ({"vae": parent_of(Path(vae).expanduser(), {})} if vae else {})

    @property
    def folder(self) -> Path:
        """Where checkpoints go."""
        chosen = self.plan.settings.save.dir
        return Path(chosen).expanduser() if chosen else self.run.checkpoints

    def save_checkpoint(self, token: CancelToken, final: bool = False) -> Iterator[Event]:
        """Write NAME-STEP.safetensors, or NAME.safetensors at the end. A full disk is waited for."""
        name = f"{self.plan.name}.safetensors" if final else f"{self.plan.name}-{self.trainer.step:06d}.safetensors"
        kind, write = (LORA, write_lora) if self.plan.settings.method.kind == LORA else ("checkpoint", write_child)
        out = self.folder / name
        written = yield from with_room(
            lambda: write(self.plan, self.trainer, out, self.parents), self.folder, token
        )
        self.checkpoint = Saved(file=str(written.path), kind=kind, step=self.trainer.step, sha256=written.sha256)
        yield self.checkpoint

    def save_state(self, token: CancelToken) -> Iterator[Event]:
        """Write the state that a later run goes on from, once a step. A full disk is waited for."""
        if self.state_step == self.trainer.step:
            return
        state = self.trainer.state()
        facts = {**state.facts, "settings": to_plain(self.plan.settings), "data": data_facts(self.plan)}
        kept = State(facts, state.tensors)
        folder = yield from with_room(
            lambda: save_state(self.run.states, self.trainer.step, kept), self.run.states, token
        )
        self.state_step = self.trainer.step
        yield Saved(file=str(folder), kind="state", step=self.trainer.step)

    def document(self, steps_per_second: float) -> dict[str, Any]:
        """What `train --json` prints."""
        return {
            "run_dir": str(self.run.path),
            "steps": self.trainer.step,
            "checkpoint": self.checkpoint.file if self.checkpoint else None,
            "sha256": self.checkpoint.sha256 if self.checkpoint else None,
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
