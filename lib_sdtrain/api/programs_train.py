"""What other programs can do with training: choose, plan, start, stop, go on."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_sdtrain.api.choice import choice_of
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.queue_kinds import RESUME, TRAIN
from lib_sdtrain.api.routing import ANYTHING, NUMBER, OBJECT, OBJECTS, TEXT, Asked, Route, record
from lib_sdtrain.api.service import MOST_GIGABYTES, TrainService
from lib_sdtrain.errors import UserError
from lib_sdtrain.jobs import STOPS
from lib_sdtrain.settings.fields import declared, default_text
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.settings.schema import json_schema

JOB = {"type": "object", "required": ["id", "kind", "label", "state"], "properties": {
    "id": TEXT, "kind": TEXT, "label": TEXT, "state": {"enum": ["waiting", "running", "finished", "stopped", "failed"]},
    "asked": TEXT, "last": NUMBER, "events": OBJECTS,
}}  # fmt: skip
GIGABYTES = {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_GIGABYTES,
             "description": "memory of the device; that of this machine's where it is not given"}  # fmt: skip
QUEUED = {"type": "boolean", "description": "wait for the machine in the queue where it is busy", "default": False}


def settings_schema() -> dict[str, Any]:
    """A run's settings, nested; dotted names (`data.concepts.0.weight`) are welcome too."""
    words = "nested as in config.yaml; dotted names (train.length, data.concepts.0.weight) too"
    return {**json_schema(RunSettings), "additionalProperties": ANYTHING, "description": words}


def choice_body(**more: Any) -> dict[str, Any]:
    """The body that chooses a run: a preset by name, and settings on top of it."""
    return record(preset={"type": "string", "description": "a preset's name"}, settings=settings_schema(), **more)


def described() -> dict[str, Any]:
    """Every setting with its type, range, default and help, and JSON schemas of a run, a merge and a picture."""
    return {"settings": [_described(item) for item in declared(RunSettings)],
            "concept": [_described(item) for item in declared(Concept)],
            "run": json_schema(RunSettings), "merge": json_schema(MergeSettings),
            "sample": json_schema(SampleRequest)}  # fmt: skip


def _described(item: Any) -> dict[str, Any]:
    meta = item.meta
    found = {
        "path": item.path, "type": getattr(item.type, "__name__", str(item.type)), "default": default_text(item),
        "label": meta.label, "help": meta.help, "unit": meta.unit, "level": meta.level, "optional": item.optional,
        "choices": list(meta.choices), "minimum": meta.minimum, "maximum": meta.maximum,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}


class TrainPrograms:
    """Answers about training."""

    def __init__(self, service: TrainService, queue: Queue) -> None:
        self.service, self.queue = service, queue

    def routes(self) -> list[Route]:
        """All of them."""
        return [*self._choosing(), *self._doing()]

    def _choosing(self) -> list[Route]:
        service = self.service
        return [
            Route("GET", "schema", "Every setting, and JSON schemas", lambda asked: described(), returns=OBJECT),
            Route("GET", "checkpoints", "What can be trained, merged and sampled", self._checkpoints, returns=OBJECTS),
            Route("POST", "checkpoints/refresh", "Look for new checkpoints", self._refreshed, returns=OBJECTS),
            Route("POST", "toybox", "Copy the built-in model to the WebUI's checkpoints",
                  lambda asked: {"name": service.add_toybox()}, returns=record(name=TEXT)),
            Route("GET", "presets", "Names of presets", lambda asked: service.presets.names(),
                  returns={"type": "array", "items": TEXT}),
            Route("GET", "presets/{name}", "What a preset sets, by dotted path", self._preset, params={"name": TEXT},
                  returns=record(name=TEXT, title=TEXT, own={"type": "boolean"}, settings=OBJECT)),
            Route("POST", "presets", "Keep settings as a preset of your own", self._keep,
                  body={**record(name=TEXT, preset=TEXT, settings=settings_schema()), "required": ["name"]},
                  returns=record(name=TEXT)),
            Route("DELETE", "presets/{name}", "Delete a preset of your own", self._forget, params={"name": TEXT},
                  returns=record(deleted=TEXT)),
            Route("POST", "settings", "The settings in force, and where each came from", self._resolved,
                  body=choice_body(), returns=record(settings=OBJECT, origins=OBJECT)),
            Route("POST", "copy", "The same run as YAML and as a command line", self._copied, body=choice_body(),
                  returns=record(yaml=TEXT, command=TEXT)),
        ]  # fmt: skip

    def _doing(self) -> list[Route]:
        stop = record(how={"type": "string", "enum": list(STOPS)}, job={"type": ["string", "null"]})
        resume = {**record(run=TEXT, settings=settings_schema(), queue=QUEUED), "required": ["run"]}
        return [
            Route("POST", "plan", "What would happen", self._plan, body=choice_body(), returns=OBJECT),
            Route("POST", "fit", "What makes a run fit into memory", self._fit, body=choice_body(gigabytes=GIGABYTES),
                  returns=OBJECT),
            Route("POST", "train", "Start a run", self._start, body=choice_body(queue=QUEUED), returns=OBJECT),
            Route("POST", "resume", "Go on with a run", self._resume, body=resume, returns=OBJECT),
            Route("POST", "stop", "Stop what runs: save and stop, save and go on, or at once", self._stop, body=stop,
                  returns=record(stopped={"type": "boolean"})),
        ]  # fmt: skip

    def _checkpoints(self, asked: Asked) -> Any:
        return [{"name": entry.name, "title": entry.title, "loaded": entry.loaded}
                for entry in self.service.checkpoints()]  # fmt: skip

    def _refreshed(self, asked: Asked) -> Any:
        self.service.host.refresh()
        return self._checkpoints(asked)

    def _preset(self, asked: Asked) -> Any:
        presets, name = self.service.presets, asked.path["name"]
        return {"settings": presets.values(name), "name": name, "title": presets.title(name), "own": presets.own(name)}

    def _keep(self, asked: Asked) -> Any:
        body = asked.body
        choice = choice_of({"preset": body.get("preset", ""), "settings": body.get("settings") or {}})
        self.service.resolve(choice)
        return {"name": self.service.presets.save(body["name"], self.service.preset_values(choice))}

    def _forget(self, asked: Asked) -> Any:
        return {"deleted": self.service.presets.delete(asked.path["name"])}

    def _resolved(self, asked: Asked) -> Any:
        from lib_sdtrain.settings.layers import to_plain

        resolved = self.service.resolve(choice_of(asked.body))
        return {"settings": to_plain(resolved.settings), "origins": dict(resolved.origins)}

    def _copied(self, asked: Asked) -> Any:
        choice = choice_of(asked.body)
        return {"yaml": self.service.yaml(choice), "command": self.service.command(choice)}

    def _plan(self, asked: Asked) -> Any:
        outlook = self.service.outlook(choice_of(asked.body))
        if outlook.problems:
            raise UserError(list(outlook.problems))
        return dict(outlook.document)

    def _fit(self, asked: Asked) -> Any:
        rest = {name: value for name, value in asked.body.items() if name != "gigabytes"}
        return self.service.fit(choice_of(rest), asked.body.get("gigabytes"))

    def _start(self, asked: Asked) -> Any:
        return self._run(asked.body, TRAIN, lambda body: self.service.start(choice_of(body)))

    def _resume(self, asked: Asked) -> Any:
        return self._run(asked.body, RESUME, lambda body: self.service.resume(
            body["run"], choice_of({"settings": body.get("settings") or {}}).changes))  # fmt: skip

    def _run(self, body: Mapping[str, Any], kind: str, start: Any) -> Any:
        rest = {name: value for name, value in body.items() if name != "queue"}
        return self.queue.add(kind, rest).as_dict() if body.get("queue") else start(rest).as_dict()

    def _stop(self, asked: Asked) -> Any:
        return {"stopped": self.service.runner.stop(asked.body.get("how", "save"), asked.body.get("job"))}


