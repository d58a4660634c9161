"""A resumable training: weights, optimizer and step in one file, numbers in a JSON-lines log."""

from __future__ import annotations

import json
from pathlib import Path

import torch


class Run:
    """The state of one training, kept at `path`.pt and logged to `path`.jsonl; resumes when the file exists."""

    def __init__(self, path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, save_every: int = 250):
        self.path, self.model, self.optimizer, self.save_every = path, model, optimizer, save_every
        self.step, self.extra = 0, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            state = torch.load(self._file, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            self.step, self.extra = state["step"], state["extra"]

    @property
    def _file(self) -> Path:
        return self.path.with_suffix(".pt")

    def note(self, step: int, **numbers: float) -> None:
        """Append one line to the log."""
        with self.path.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **numbers}) + "\n")

    def done(self, step: int, **numbers: float) -> bool:
        """Log every 50th step, save every `save_every`th; whether this one was saved."""
        if (step + 1) % 50 == 0:
            self.note(step + 1, **numbers)
        if (step + 1) % self.save_every:
            return False
        self.save(step + 1)
        return True

    def save(self, step: int) -> None:
        """Write the state under a temporary name, then rename it into place."""
        part = self.path.with_suffix(".part")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "step": step, "extra": self.extra}, part)
        part.replace(self._file)
