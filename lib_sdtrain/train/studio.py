"""Pictures by the surroundings' own program in place of our sampler: the WebUI's txt2img, with all that it can do.

The surroundings have the checkpoint loaded that is trained; for a preview they show the trained weights in it.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken
from lib_sdtrain.sample.embeddings import Embedding
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_outputs import WEBUI

Body = Mapping[str, Any]
"""A body of the WebUI's /sdapi/v1/txt2img."""


@dataclass(frozen=True)
class Drawn:
    """A picture and what its file says of it."""

    image: Image.Image
    infotext: str


@dataclass(frozen=True)
class Weights:
    """What a loaded model is to show: tensors by their LDM/SGM names, and words that prompts may name."""

    name: str
    tensors: Mapping[str, Tensor]
    embeddings: Sequence[Embedding] = ()


Draw = Callable[[Body, CancelToken], list[Drawn]]


@runtime_checkable
class Studio(Protocol):
    """Draws with the model that the surroundings have loaded, for whoever has the machine to himself."""

    def check(self, checkpoint: Path, bodies: Mapping[str, Body], problems: Problems) -> None:
        """Add what keeps it from drawing with this checkpoint, and from drawing each of the bodies (by the setting
        that they come from), to `problems`."""

    def showing(self, checkpoint: Path, weights: Weights | None) -> AbstractContextManager[Draw]:
        """While open, its loaded model shows `weights` (None: the checkpoint's own) and can draw; afterwards all is
        as it was, whatever happened.

        Raises `UserError` when another checkpoint is loaded, `JobFailed` when a picture cannot be drawn, and
        `Cancelled` when it was interrupted; the token then says so too.
        """


def check_studio(
    settings: RunSettings, checkpoint: Path | None, bodies: Mapping[str, Body], studio: Studio | None,
    problems: Problems,
) -> None:  # fmt: skip
    """Add to `problems` what keeps the surroundings from drawing what the settings leave to them."""
    chosen = [
        (where, fix) for where, by, fix in (
            ("preview.drawn_by", settings.preview.drawn_by, "previews"),
            ("data.class_drawn_by", settings.data.class_drawn_by, "class pictures"),
        ) if by == WEBUI
    ]  # fmt: skip
    if studio is None:
        for where, what in chosen:
            problems.add(f"there is no WebUI here to draw {what}", where=where, fix="choose sdtrain")
    elif chosen and checkpoint is not None:
        studio.check(checkpoint, bodies, problems)
