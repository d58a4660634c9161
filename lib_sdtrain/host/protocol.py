"""What a host is to the rest of the program.

A host lists checkpoints, lends the machine to one job at a time, gets its own model out of the way meanwhile,
mirrors progress to whoever watches it, and says where files may be read and written.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lib_sdtrain.events import Event

if TYPE_CHECKING:
    from torch import Tensor

    from lib_sdtrain.train.studio import Studio


@dataclass(frozen=True)
class CheckpointEntry:
    """A checkpoint that can be chosen. `name` is what settings hold, `title` what people read."""

    name: str
    title: str
    path: Path
    loaded: bool = False


_LATER = re.compile(r"( \[[0-9a-f]{10}\])?(  \(loaded\))?$")


def entry_called(entries: Iterable[CheckpointEntry], text: str) -> CheckpointEntry | None:
    """The entry of this name or title, also of a title from before it was hashed, loaded, or let go again."""
    listed = list(entries)
    exact = next((entry for entry in listed if text in (entry.name, entry.title)), None)
    if exact is not None:
        return exact
    bare = _LATER.sub("", text)
    same = [entry for entry in listed if _LATER.sub("", entry.title) == bare]
    return same[0] if len(same) == 1 else None


@runtime_checkable
class Host(Protocol):
    """The surroundings of a job."""

    name: str
    #: Only this machine can reach the page, so any path its user names is their own.
    local: bool
    #: The page is not to show controls that name folders.
    hides_folders: bool

    def checkpoints(self) -> list[CheckpointEntry]:
        """Everything that can be trained, the loaded one first."""

    def current(self) -> CheckpointEntry | None:
        """The checkpoint in the host's hands, without making it load one."""

    def device(self) -> str:
        """Where to compute: `cpu`, `cuda` (the current card of the thread that asks), `mps`."""

    def exclusive(self, job: str) -> AbstractContextManager[None]:
        """Waits for the machine and keeps everybody else's work off it; `job` is shown to those who wait."""

    def step_aside(self) -> AbstractContextManager[None]:
        """The host's model leaves the device; model and random state are as before afterwards, whatever happened."""

    def report(self, event: Event) -> bool:
        """Mirrors an event to the host's own progress; True when its user pressed the host's own stop button."""

    def output_dir(self) -> Path:
        """Where runs and presets are kept (need not exist yet)."""

    def checkpoint_dir(self) -> Path | None:
        """Where new checkpoints belong so that the host lists them; None leaves them in the run directory."""

    def lora_dir(self) -> Path | None:
        """Where new LoRAs belong so that the host lists them; None leaves them in the run directory."""

    def embeddings_dir(self) -> Path | None:
        """Where the host's embeddings are and new ones belong; None leaves them in the run directory."""

    def allowed_path(self, path: str, where: str) -> Path:
        """The absolute path. Raises `UserError` when the page can be reached from outside and may not go there."""

    def studio(self) -> Studio | None:
        """What draws pictures for a run in place of our sampler, with the loaded model; None where nothing does."""

    def adopt(self, checkpoint: Path) -> None:
        """Make a new checkpoint one that the host can load, and list it."""

    def refresh(self) -> None:
        """Look for new checkpoints."""


class LiveTensors(Protocol):
    """An opened merge. Keys are LDM/SGM names."""

    def keys(self) -> list[str]:
        """Every key whose tensor is not what the checkpoint's own file holds."""

    def tensor(self, key: str) -> Tensor:
        """The tensor as a file would hold it."""


@dataclass(frozen=True)
class LiveMerge:
    """A merge that a loaded model can show without a file: what is to be changed, and what to call it.

    `checkpoint` is the file of the loaded model. `digest` (64 hex) stands where a file's SHA-256 would; `recipe` is
    what pictures made meanwhile carry. Weights of a training have neither. `opened` opens it, as often as needed.
    """

    checkpoint: Path
    name: str
    digest: str
    recipe: str
    opened: Callable[[], AbstractContextManager[LiveTensors]]


@runtime_checkable
class LiveHost(Protocol):
    """A host whose loaded model can be changed in memory. Both commands are for whoever holds `exclusive`."""

    #: Whether it can here and now.
    shows_live: bool

    def live(self) -> LiveMerge | None:
        """The merge that the loaded model shows now; None when its weights are its file's."""

    def apply_live(
        self, merge: LiveMerge, tensors: LiveTensors, keys: Sequence[str] | None, tell: Callable[[int, int], None]
    ) -> None:
        """Make the loaded model show `merge`, of which only `keys` are other than now (None: not known). `tell(done,
        total)` hears of the way.

        Raises `UserError` when the model cannot show it. Whatever is raised, also by `tell`, the model is then its
        file's again.
        """

    def revert_live(self) -> bool:
        """The loaded model as it was, bit for bit; False when there was nothing to undo."""
