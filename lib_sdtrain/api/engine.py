"""What the tab and the API need of the engine, with torch and diffusers imported only when work begins."""
from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.settings.layers import Layer, Resolved
from lib_sdtrain.settings.run import RunSettings

if TYPE_CHECKING:
    from lib_sdtrain.train.studio import Studio


@dataclass(frozen=True)
class Place:
    """Where a run computes and where its outputs go; `studio` is what the host draws pictures with, if it does."""

    outputs: Path
    device: str
    studio: Studio | None = None


class Engine(Protocol):
    """Training, as seen from outside."""

    def presets(self) -> Mapping[str, str]:
        """Shipped presets: name and one line about each."""

    def preset(self, name: str) -> Mapping[str, Any]:
        """What a shipped preset sets."""

    def resolve(self, layers: Sequence[Layer], device: str) -> Resolved[RunSettings]:
        """The settings in force, with the model family's below the layers. Raises `UserError` with all mistakes."""

    def plan(self, settings: RunSettings, place: Place) -> dict[str, Any]:
        """The dry run's document, `notices` added. Raises `UserError` with all mistakes."""

    def fit(self, settings: RunSettings, place: Place, gigabytes: float | None) -> dict[str, Any]:
        """What makes a run fit into so many gigabytes, or for None into what the device has: see `TrainService.fit`.

        Raises `UserError` with all mistakes.
        """

    def survey(self, settings: RunSettings, place: Place, token: CancelToken) -> Generator[Event, None, Any]:
        """Progress while the pictures are read; returns what can be looked at (`api.dataset.Pictures`).

        Raises `UserError` with all mistakes.
        """

    def train(self, settings: RunSettings, place: Place, token: CancelToken) -> Iterator[Event]:
        """A new run."""

    def resume(
        self, run_dir: Path, changes: Mapping[str, Any], place: Place, token: CancelToken
    ) -> Iterator[Event]:
        """A run that goes on from its last saved state, with changed settings by dotted path."""
