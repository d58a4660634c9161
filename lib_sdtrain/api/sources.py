"""Where settings can come from besides a form: a task of the queue, an earlier run, a file, a picture's infotext."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.api.choice import Choice, choice_of
from lib_sdtrain.api.history import RUN
from lib_sdtrain.api.origin import origin_of
from lib_sdtrain.api.queue_kinds import TRAIN
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.api.services import Services
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings

OF_THE_RUN = ("save.dir",)  # where a run's results went is the host's word, and another host has another


@dataclass(frozen=True)
class Source:
    """Settings that were found, what to say about them, and the waiting task that they were taken from."""

    choice: Choice
    notes: tuple[str, ...] = ()
    task: str = ""


def source_of(asked: str, services: Services) -> Source:
    """What a page's wish stands for. Raises `UserError` when there is nothing to take."""
    try:
        wish = json.loads(asked or "{}")
    except ValueError as error:
        raise UserError("the page sent no JSON", where="form", fix="reload the page") from error
    if not isinstance(wish, dict):
        raise UserError("the page sent no object", where="form", fix="reload the page")
    service, queue = services.train, services.queue
    if "task" in wish:
        task = queue.task(str(wish["task"]))
        if task.kind != TRAIN or task.state != "waiting":
            raise UserError(f"{task.label} is no run that waits", where="queue", fix="choose a waiting one")
        return Source(Choice("", task.request["settings"]), (f"{task.label} was taken out of the queue.",), task.id)
    if "run" in wish:
        return _of_run(str(wish["run"]), service)
    if "infotext" in wish:
        return _of_picture(str(wish["infotext"]), services)
    if "text" in wish:
        return of_text(str(wish["text"]), str(wish.get("name") or "file"))
    raise UserError("there is nothing to take", where="form", fix="choose a run or a file")


def _of_run(name: str, service: TrainService) -> Source:
    entry = service.run_named(name)
    if entry is None:
        raise UserError(f"there is no run {name!r}", where="run", fix="choose one of the list")
    found = of_settings(textfiles.read_mapping(entry.path / "config.yaml"), f"{entry.label}'s config.yaml")
    return Source(found.choice, (f"These are the settings of {entry.label}.",))


def _of_picture(infotext: str, services: Services) -> Source:
    """The settings of the run that made the model of a picture."""
    found = origin_of(infotext, services.history, services.merge.files)
    if found.kind == RUN and found.id:
        return replace(_of_run(found.id, services.train), notes=(found.words,))
    if found.kind == RUN and found.metadata:
        settings = {path: value for path, value in found.metadata["settings"].items() if path != "data"}
        note = "The file knows the settings, but neither the pictures' folder nor what it started from: choose them."
        return replace(of_settings(settings, found.file), notes=(found.words, note))
    fix = "drop it on Runs, which leads to the Merge form" if found.kind else "drop another picture"
    raise UserError(found.words, where="picture", fix=fix)


def of_text(text: str, name: str) -> Source:
    """Settings from the text of a YAML or JSON file. Raises `UserError` with every mistake in it."""
    data = textfiles.parse_yaml(text, name)
    if not isinstance(data, dict):
        raise UserError("it holds no settings", where=name, fix="give a preset, or a run's config.yaml")
    return Source(of_settings(data, name).choice, (f"These are the settings of {name}.",))


def of_settings(data: Mapping[str, Any], name: str) -> Source:
    """Settings as nested or dotted data. Raises `UserError` with every mistake."""
    changes = choice_of({"settings": data}).changes
    resolve(RunSettings, [Layer(name, changes)])
    return Source(Choice("", {path: value for path, value in changes.items() if path not in OF_THE_RUN}))


def preview_of(infotext: str) -> str:
    """A preview that is drawn as an infotext says. Raises `UserError` for text that is none."""
    from lib_sdtrain.sample.infotext import parse_infotext

    text = infotext.strip()
    parse_infotext(text)
    return text
