"""What other programs can do with merging and sampling: choose, plan, start."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_sdtrain.api.merging import OF_COMMANDS, MergeService
from lib_sdtrain.api.merging_pictures import PicturePlan
from lib_sdtrain.api.programs_train import QUEUED
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.queue_kinds import MERGE
from lib_sdtrain.api.routing import NUMBER, OBJECT, OBJECTS, TEXT, Asked, Route, record
from lib_sdtrain.api.sampling import SampleService
from lib_sdtrain.api.sampling_form import OTHER, form_items
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.settings.schema import json_schema

_AXES = ("x", "x_values", "y", "y_values")
_WEIGHTS: Mapping[str, Any] = {"type": "string", "description": "numbers between commas, BASE first"}


def merge_properties() -> dict[str, Any]:
    """What a merge takes: the command's settings with a `name` instead of a path to write to."""
    known = json_schema(MergeSettings)["properties"]
    return {name: part for name, part in known.items() if name not in OF_COMMANDS} | {"name": TEXT}


def sample_properties() -> dict[str, Any]:
    """What a drawing takes: a request, its checkpoint, a second one to compare, a grid's axes."""
    known = json_schema(SampleRequest)["properties"]
    own = {name: known[name] for name in form_items()}
    return own | dict.fromkeys(("checkpoint", "compare", *_AXES, OTHER), TEXT)


class ModelPrograms:
    """Answers about merging and sampling."""

    def __init__(self, merge: MergeService, sample: SampleService, queue: Queue) -> None:
        self.merge, self.sample, self.queue = merge, sample, queue

    def routes(self) -> list[Route]:
        """All of them."""
        return [*self._merge_routes(), *self._sample_routes()]

    def _merge_routes(self) -> list[Route]:
        merge, of_merge = self.merge, merge_properties()
        pair = {**record(a=TEXT, b=TEXT, convention=TEXT), "required": ["a", "b"]}
        drawing = record(form=record(**of_merge), prompts=TEXT, negative_prompt=TEXT, merged=TEXT, seed=NUMBER,
                         steps=NUMBER, size=NUMBER, clip_skip=NUMBER)  # fmt: skip
        return [
            Route("GET", "merge/methods", "Methods of merging", lambda asked: merge.methods(), returns=OBJECTS),
            Route("GET", "merge/presets", "Names of block weights", lambda asked: merge.presets.names(),
                  returns={"type": "array", "items": TEXT}),
            Route("POST", "merge/presets", "Keep block weights under a name", self._keep,
                  body={**record(name=TEXT, weights=_WEIGHTS), "required": ["name", "weights"]},
                  returns=record(name=TEXT)),
            Route("POST", "merge/blocks", "Family and blocks of a checkpoint",
                  lambda asked: merge.blocks(asked.body["model"]),
                  body={**record(model=TEXT), "required": ["model"]}, returns=OBJECT),
            Route("POST", "merge/plan", "What a merge would do", self._merge_plan, body=record(**of_merge),
                  returns=OBJECT),
            Route("POST", "merge", "Start a merge", self._merge, body=record(**of_merge, queue=QUEUED), returns=OBJECT),
            Route("POST", "merge/difference", "Where two checkpoints differ: what is known, or the job that finds out",
                  self._difference, body=pair, returns=OBJECT),
            Route("POST", "merge/pictures", "Draw the models of a merge from the same seeds", self._pictures,
                  body={**drawing, "required": ["form", "prompts"]}, returns=OBJECT),
            Route("GET", "merge/history", "Merges that were made here", lambda asked: merge.history.entries(),
                  returns=OBJECTS),
            Route("POST", "merge/again", "The form of an earlier merge or of a merged file", self._again,
                  body={**record(source=TEXT), "required": ["source"]},
                  returns=record(form=OBJECT, notes={"type": "array", "items": TEXT})),
        ]  # fmt: skip

    def _sample_routes(self) -> list[Route]:
        body = record(**sample_properties())
        return [
            Route("POST", "sample/read", "What an infotext asks for", self._read,
                  body={**record(infotext=TEXT), "required": ["infotext"]}, returns=OBJECT),
            Route("POST", "sample/plan", "What would be drawn", self._sample_plan, body=body, returns=OBJECT),
            Route("POST", "sample", "Draw", lambda asked: self.sample.start(asked.body).as_dict(), body=body,
                  returns=OBJECT),
        ]  # fmt: skip

    def _keep(self, asked: Asked) -> Any:
        return {"name": self.merge.presets.save(asked.body["name"], asked.body["weights"])}

    def _merge_plan(self, asked: Asked) -> Any:
        outlook = self.merge.outlook(asked.body)
        if outlook.problems:
            raise UserError(list(outlook.problems))
        return dict(outlook.facts)

    def _merge(self, asked: Asked) -> Any:
        form = {name: value for name, value in asked.body.items() if name != "queue"}
        found = self.queue.add(MERGE, form) if asked.body.get("queue") else self.merge.start(form)
        return found.as_dict()

    def _difference(self, asked: Asked) -> Any:
        words = (asked.body["a"], asked.body["b"], asked.body.get("convention") or "mbw")
        known = self.merge.difference(*words)
        return {"difference": known} if known else {"job": self.merge.start_difference(*words).as_dict()}

    def _pictures(self, asked: Asked) -> Any:
        given = {name: value for name, value in asked.body.items() if name != "form"}
        return self.merge.start_pictures(asked.body["form"], PicturePlan(**given)).as_dict()

    def _again(self, asked: Asked) -> Any:
        form, notes = self.merge.again(asked.body["source"])
        return {"form": form, "notes": notes}

    def _read(self, asked: Asked) -> Any:
        reading = self.sample.read(asked.body["infotext"])
        entry = self.sample.entry_of(reading)
        return {"form": dict(reading.values), "model": reading.model, "model_hash": reading.model_hash,
                "checkpoint": entry.title if entry else None, "notes": list(reading.notes)}  # fmt: skip

    def _sample_plan(self, asked: Asked) -> Any:
        outlook = self.sample.outlook(asked.body)
        if outlook.problems:
            raise UserError(list(outlook.problems))
        return {name: value for name, value in vars(outlook).items() if name != "problems"}
