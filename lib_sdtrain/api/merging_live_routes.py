"""The routes of live merges, where the host has a loaded model that can show them."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.api.merging_live import LiveMerging
from lib_sdtrain.api.programs_models import merge_properties
from lib_sdtrain.api.routing import NUMBER, OBJECTS, TEXT, Asked, Route, record

_STATE = record(
    state={"enum": ["off", "waiting", "working", "on"], "type": "string"}, on={"type": "boolean"}, name=TEXT, hash=TEXT,
    checkpoint=TEXT, done=NUMBER, total=NUMBER, problems=OBJECTS,
)  # fmt: skip


def live_viewing(live: LiveMerging) -> list[Route]:
    """What the page asks for."""
    if not live.available:
        return []
    return [Route("GET", "live", "What the loaded model shows", lambda _: live.state(), returns=_STATE, public=True)]


def live_commands(live: LiveMerging) -> list[Route]:
    """What programs may do: have the loaded model show a merge, and have its own weights back."""
    if not live.available:
        return []

    def show(asked: Asked) -> dict[str, Any]:
        live.show(asked.body)
        return live.state()

    def revert(asked: Asked) -> dict[str, Any]:
        del asked
        live.revert()
        return live.state()

    form = {name: schema for name, schema in merge_properties().items() if name != "name"}
    return [
        Route("POST", "live", "Show a merge in the loaded model", show, body=record(**form), returns=_STATE),
        Route("POST", "live/revert", "Have the loaded model's own weights back", revert, returns=_STATE),
    ]
