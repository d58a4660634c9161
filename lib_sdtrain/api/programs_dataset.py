"""The data set of a run, looked at and changed: for the page, and for programs."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.api.choice import choice_of
from lib_sdtrain.api.dataset import DatasetService
from lib_sdtrain.api.preparing import MOVE, RESIZE, SHOW, TAGS, UNDO, WRITE, PreparingService, wish_of
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


WORK = {"type": "object", "required": ["id", "state"], "properties": {
    "id": TEXT, "act": TEXT, "folder": TEXT, "state": {"enum": ["working", "done", "stopped", "failed", "gone"]},
    "phase": {"type": ["object", "null"]}, "seconds": {"type": "number"}, "problems": OBJECTS,
    "notices": {"type": "array", "items": TEXT}, "result": {"type": ["object", "null"]},
}}  # fmt: skip
_FLAG, _TAGS = {"type": "boolean"}, {"type": "array", "items": TEXT}
WISH = {
    "act": {"enum": [TAGS, SHOW, WRITE, RESIZE, MOVE, UNDO], "description": "count tags, show or write what find, "
            "replace, remove, first and last make of the captions, resize pictures as the settings say or move those "
            "with a tag into `out`, take the last change in a folder back"},
    "folder": {"type": "string", "description": "empty: the one of the settings"},
    "find": TEXT, "replace": TEXT, "word": _FLAG, "regex": _FLAG, "remove": _TAGS, "first": _TAGS, "last": _TAGS,
    "tag": TEXT, "out": TEXT,
}  # fmt: skip


class PreparingPrograms:
    """Answers about captions and pictures that are changed."""

    def __init__(self, service: PreparingService) -> None:
        self.service = service

    def viewing(self) -> list[Route]:
        """What the Dataset sub-tab asks for; it changes nothing."""
        return [
            Route("GET", "preparing", "The last change to captions or pictures", self._last, returns=WORK, public=True),
            Route("GET", "preparing/{name}", "How far a change to captions or pictures is", self._view,
                  params=_NAME, returns=WORK, public=True),
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        """For programs."""
        return [
            Route("POST", "preparing", "Count tags, change captions, resize or move pictures, take that back",
                  self._begin, body=choice_body(**WISH), returns=WORK),
            Route("DELETE", "preparing/{name}", "Stop a change", self._stop, params=_NAME,
                  returns=record(stopped=_FLAG)),
        ]  # fmt: skip

    def _begin(self, asked: Asked) -> Any:
        body = {name: value for name, value in asked.body.items() if name not in WISH}
        return self.service.begin(choice_of(body), wish_of(asked.body)).as_dict()

    def _last(self, asked: Asked) -> Any:
        del asked
        return self.service.view() or {"id": "", "state": "gone"}

    def _view(self, asked: Asked) -> Any:
        return self.service.view(asked.path["name"]) or _nothing(asked)

    def _stop(self, asked: Asked) -> Any:
        return {"stopped": self.service.stop(asked.path["name"])}


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

