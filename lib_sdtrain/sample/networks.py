"""<lora:name:weight>: networks applied to the model for the time of a pass, then taken off exactly."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.sample.composition import Network
from lib_sdtrain.settings.sample import SampleRequest

if TYPE_CHECKING:
    from typing_extensions import Self


def check_networks(request: SampleRequest, folders: Sequence[Path]) -> None:
    """Raise `UserError` for marks in the prompts that no file or rule answers to."""


class Networks:
    """A context: `apply` puts a set of networks on the model in place of the one before; the end takes them off."""

    def __init__(self, model: LoadedModel, folders: Sequence[Path]) -> None:
        self.model, self.folders = model, folders
        self.hashes = ""

    def apply(self, wanted: Sequence[Network]) -> None:
        """Put exactly these networks on."""
        if wanted:
            raise UserError("networks are not supported yet", where="prompt")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.apply(())
