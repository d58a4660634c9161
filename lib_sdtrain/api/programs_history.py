"""The queue, the list of what was made, and one run in full: for the page that looks, and for programs that act."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.api.history import History
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.removal import WHAT, Removal, Removed
from lib_sdtrain.api.routing import NUMBER, OBJECT, OBJECTS, TEXT, Asked, Route, record
from lib_sdtrain.api.service import TrainService

_NAME = {"name": TEXT}
_PICTURE = {"name": TEXT, "step": NUMBER, "index": NUMBER}
_NAMES = {"run": {"type": "array", "items": TEXT}}
_GONE = record(bytes=NUMBER, left={"type": "array", "items": TEXT})
QUEUE = {"type": "object", "required": ["held", "notice", "running", "waiting", "ended"], "properties": {
    "held": TEXT, "notice": TEXT, "running": {"type": ["object", "null"]}, "waiting": OBJECTS, "ended": OBJECTS,
}}  # fmt: skip


class HistoryPrograms:
    """Answers about the queue and what was made."""

    def __init__(self, queue: Queue, history: History, removal: Removal, service: TrainService) -> None:
        self.queue, self.history, self.removal, self.service = queue, history, removal, service

    def viewing(self) -> list[Route]:
        """What the Runs sub-tab asks for; it changes nothing."""
        return [
            Route("GET", "view/queue", "The queue, without requests", lambda asked: self.queue.as_dict(),
                  returns=QUEUE, public=True),
            Route("GET", "view/history", "Runs and merges, the newest first", self._entries, returns=OBJECTS,
                  public=True),
            Route("GET", "view/history/{name}", "One of them in full", self._detail, params=_NAME, returns=OBJECT,
                  public=True),
            Route("GET", "view/compare", "Settings in which several differ", self._compare, query=_NAMES,
                  returns=record(labels={"type": "array", "items": TEXT}, settings=OBJECTS), public=True),
            Route("GET", "view/history/{name}/preview/{step}/{index}", "A preview picture of a run", self._picture,
                  params=_PICTURE, picture=True, public=True),
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        """For programs."""
        add = {**record(kind={"type": "string", "enum": ["train", "resume", "merge"]}, request=OBJECT,
                        first={"type": "boolean"}), "required": ["kind", "request"]}  # fmt: skip
        return [
            Route("GET", "runs", "Runs, the newest first", self._runs, returns=OBJECTS),
            Route("DELETE", "runs/{name}", "Delete a run's state, the run, or the run and its models", self._remove,
                  params=_NAME, query={"what": {"type": "string", "enum": list(WHAT)}}, returns=_GONE),
            Route("DELETE", "runs/{name}/files/{file}", "Delete a model that a run has written", self._remove_file,
                  params={"name": TEXT, "file": TEXT}, returns=_GONE),
            Route("GET", "queue", "The queue", lambda asked: self.queue.as_dict(with_requests=True), returns=QUEUE),
            Route("POST", "queue", "Put a task into the queue", self._add, body=add, returns=OBJECT),
            Route("DELETE", "queue/{id}", "Take a task out", self._take_out, params={"id": TEXT}, returns=OBJECT),
            Route("POST", "queue/{id}/move", "Move a waiting task by so many places", self._move, params={"id": TEXT},
                  body={**record(by={"type": "integer", "minimum": -1000, "maximum": 1000}), "required": ["by"]},
                  returns=QUEUE),
            Route("POST", "queue-hold", "Start nothing more", lambda asked: self._told(self.queue.hold), returns=QUEUE),
            Route("POST", "queue-go-on", "Go on with the queue", lambda asked: self._told(self.queue.go_on),
                  returns=QUEUE),
            Route("POST", "queue-clear", "Forget the tasks that have ended",
                  lambda asked: self._told(self.queue.clear_ended), returns=QUEUE),
        ]  # fmt: skip

    def _entries(self, asked: Asked) -> Any:
        return self.history.entries()

    def _detail(self, asked: Asked) -> Any:
        return self.history.detail(asked.path["name"])

    def _compare(self, asked: Asked) -> Any:
        return self.history.compare(asked.query["run"])

    def _picture(self, asked: Asked) -> Any:
        return self.history.picture(asked.path["name"], asked.path["step"], asked.path["index"])

    def _runs(self, asked: Asked) -> Any:
        return [{**run.as_dict(), "path": str(run.path)} for run in self.service.runs()]

    def _remove(self, asked: Asked) -> Any:
        return _gone(self.removal.remove(asked.path["name"], asked.query.get("what", WHAT[1])))

    def _remove_file(self, asked: Asked) -> Any:
        return _gone(self.removal.remove_file(asked.path["name"], asked.path["file"]))

    def _add(self, asked: Asked) -> Any:
        body = asked.body
        return self.queue.add(body["kind"], body["request"], first=body.get("first", False)).as_dict()

    def _take_out(self, asked: Asked) -> Any:
        return self.queue.remove(asked.path["id"]).as_dict()

    def _move(self, asked: Asked) -> Any:
        self.queue.move(asked.path["id"], max(-1000, min(1000, asked.body["by"])))
        return self.queue.as_dict(with_requests=True)

    def _told(self, act: Any) -> Any:
        act()
        return self.queue.as_dict(with_requests=True)


def _gone(removed: Removed) -> dict[str, Any]:
    return {"bytes": removed.bytes, "left": list(removed.left)}
