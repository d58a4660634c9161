"""A host whose loaded model is a folder's checkpoint in memory, changed as the WebUI's is."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lib_sdtrain.errors import UserError
from lib_sdtrain.host.protocol import LiveMerge, LiveTensors
from lib_sdtrain.host.standalone import StandaloneHost


@dataclass(frozen=True)
class Loaded:
    """What a host holds: the tensors that are not the file's, the merge that put them there, keys of each change."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    merges: list[LiveMerge] = field(default_factory=list)
    changes: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class LiveFolderHost(StandaloneHost):
    """A standalone host with a loaded model: models/a.safetensors."""

    loaded: Loaded = field(default_factory=Loaded)
    shows_live: bool = True

    def live(self) -> LiveMerge | None:
        """The last merge."""
        return self.loaded.merges[-1] if self.loaded.merges else None

    def apply_live(
        self, merge: LiveMerge, tensors: LiveTensors, keys: Sequence[str] | None, tell: Callable[[int, int], None]
    ) -> None:
        """Into the dictionary."""
        if merge.checkpoint != Path(self.folder / "models" / "a.safetensors"):
            raise UserError(f"{merge.checkpoint.name} is not the loaded checkpoint", where="a")
        if keys is None:
            self.revert_live()
        wanted = list(tensors.keys() if keys is None else keys)
        for done, key in enumerate(wanted):
            tell(done, len(wanted))
            self.loaded.tensors[key] = tensors.tensor(key).clone()
        self.loaded.changes.append(wanted)
        self.loaded.merges.append(merge)

    def revert_live(self) -> bool:
        """Nothing is changed any more."""
        was = bool(self.loaded.merges)
        self.loaded.merges.clear()
        self.loaded.tensors.clear()
        return was
