"""Sampling with the WebUI's semantics: the same request on the same checkpoint gives the same picture.

`sample(settings, token)` draws into a folder and yields events; `generate.generate(model, request, token)` yields
pictures of a model in memory. Reading requests and infotexts needs no torch.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lib_sdtrain.entry import make_callable

if TYPE_CHECKING:
    from lib_sdtrain.events import CancelToken, Event
    from lib_sdtrain.settings.sample import SampleSettings


def sample(settings: SampleSettings, token: CancelToken | None = None) -> Iterator[Event]:
    """Draw every request in order, see `engine.sample`."""
    from lib_sdtrain.sample import engine

    return engine.sample(settings, token)


make_callable(__name__, __name__, "sample")
