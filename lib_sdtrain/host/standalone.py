"""The host that is no host: checkpoints of a folder, the whole machine, nothing to step aside."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from lib_sdtrain.events import Event
from lib_sdtrain.host.paths import confined, resolved
from lib_sdtrain.host.protocol import CheckpointEntry
from lib_sdtrain.train.allocator import memory_given_back

TOYBOX = CheckpointEntry("toybox", "toybox (built in, small)", Path(__file__).parents[1] / "toybox/toybox.safetensors")
SUFFIXES = (".safetensors", ".ckpt")


def listed(folder: Path) -> list[CheckpointEntry]:
    """The checkpoints below a folder, by name; VAE files left out as the WebUI does."""
    if not folder.is_dir():
        return []
    found = sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and not p.stem.endswith(".vae"))
    return [CheckpointEntry(str(path), path.relative_to(folder).as_posix(), path) for path in found]


@dataclass(frozen=True)
class StandaloneHost:
    """Works in `folder`: checkpoints from models/, results to outputs/."""

    folder: Path
    local: bool = True
    name: str = field(default="standalone", init=False)
    hides_folders: bool = field(default=False, init=False)

    def checkpoints(self) -> list[CheckpointEntry]:
        """toybox, then models/ and what runs and merges have written."""
        folders = (self.folder / "models", self.output_dir() / "runs", self.output_dir() / "merges")
        return [TOYBOX, *(entry for folder in folders for entry in listed(folder))]

    def current(self) -> CheckpointEntry | None:
        """Nothing is ever loaded here."""
        return None

    def device(self) -> str:
        """CUDA when torch has it."""
        if find_spec("torch") is None:
            return "cpu"
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @contextmanager
    def exclusive(self, job: str) -> Iterator[None]:
        """There is nobody else."""
        yield

    @contextmanager
    def step_aside(self) -> Iterator[None]:
        """There is no other model; what the job took goes back to the system."""
        with memory_given_back(_empty_cache):
            yield

    def report(self, event: Event) -> bool:
        """Nobody else watches."""
        return False

    def output_dir(self) -> Path:
        """outputs/ in the folder."""
        return self.folder / "outputs"

    def lora_dir(self) -> Path | None:
        """LoRAs stay in their run directory."""
        return None

    def embeddings_dir(self) -> Path | None:
        """Embeddings stay in their run directory."""
        return None

    def checkpoint_dir(self) -> Path | None:
        """Results stay with their run."""
        return None

    def allowed_path(self, path: str, where: str) -> Path:
        """Anything for the machine's own user; the folder and the package for others."""
        if self.local:
            return resolved(path, where)
        return confined(path, (self.folder, TOYBOX.path.parent), where)

    def studio(self) -> None:
        """Nothing but our sampler draws here."""

    def adopt(self, checkpoint: Path) -> None:
        """Every checkpoint can be loaded here."""

    def refresh(self) -> None:
        """Folders are read anew each time."""


def _empty_cache() -> None:
    torch = sys.modules.get("torch")  # the job has loaded it, if it needed it
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
