"""The data set of a run: for the page that looks, and for programs."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.api.choice import choice_of
from lib_sdtrain.api.dataset import DatasetService
from lib_sdtrain.api.programs_train import choice_body
from lib_sdtrain.api.routing import NUMBER, OBJECTS, TEXT, Asked, Route, record

FIRST_PAGE = 48
_NAME = {"name": TEXT}
_PAGE = {
    "which": {"type": "string", "description": "all, cut, small, twins, bare, odd, bucket WxH or concept N"},
    "first": NUMBER, "count": NUMBER, "search": {"type": "string", "description": "part of a name or caption"},
}  # fmt: skip
LOOK = {"type": "object", "required": ["id", "state"], "properties": {
    "id": TEXT, "state": {"enum": ["reading", "done", "stopped", "failed", "gone"]},
    "phase": {"type": ["object", "null"]},
    "seconds": {"type": "number"}, "folder": TEXT, "problems": OBJECTS, "notices": {"type": "array", "items": TEXT},
    "report": {"type": ["object", "null"], "description": "as of `plan`, and lists, twins, prompts in their tokens"},
}}  # fmt: skip


class DatasetPrograms:
    """Answers about pictures that are looked at."""

    def __init__(self, service: DatasetService) -> None:
        self.service = service

    def viewing(self) -> list[Route]:
        """What the Dataset sub-tab asks for; it changes nothing."""
        return [
            Route("GET", "dataset/{name}", "How far reading is, and what was found", self._view, params=_NAME,
                  returns=LOOK, public=True),
            Route("GET", "dataset/{name}/pictures", "A page of a list of its pictures", self._page, params=_NAME,
                  query=_PAGE, returns=record(total=NUMBER, rows=OBJECTS), public=True),
            Route("GET", "dataset/{name}/pictures/{number}", "A picture, small (JPEG)", self._picture,
                  params={"name": TEXT, "number": NUMBER}, query={"mark": TEXT}, picture=True, public=True),
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        """For programs."""
        folder = {"type": "string", "description": "look at this folder as the settings would use it"}
        return [
            Route("POST", "dataset", "Read the pictures of a run, or of a folder", self._look,
                  body=choice_body(folder=folder), returns=LOOK),
            Route("DELETE", "dataset/{name}", "Stop reading", self._stop, params=_NAME,
                  returns=record(stopped={"type": "boolean"})),
        ]  # fmt: skip

    def _look(self, asked: Asked) -> Any:
        body = {name: value for name, value in asked.body.items() if name != "folder"}
        return self.service.look(choice_of(body), asked.body.get("folder") or "").as_dict()

    def _view(self, asked: Asked) -> Any:
        return self.service.view(asked.path["name"]) or _nothing(asked)

    def _page(self, asked: Asked) -> Any:
        query = asked.query
        found = self.service.page(
            asked.path["name"], query.get("which", "all"), query.get("first", 0), query.get("count", FIRST_PAGE),
            query.get("search", ""),
        )
        return found or {"total": 0, "rows": []}

    def _picture(self, asked: Asked) -> Any:
        return self.service.picture(asked.path["name"], asked.path["number"])

    def _stop(self, asked: Asked) -> Any:
        return {"stopped": self.service.stop(asked.path["name"])}


def _nothing(asked: Asked) -> dict[str, Any]:
    """The program was restarted, or newer looks have taken its place."""
    return {"id": asked.path["name"], "state": "gone"}

