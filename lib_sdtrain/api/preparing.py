"""Captions and pictures of a folder changed from the page: shown before it is done, followed, stopped, taken back."""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lib_sdtrain.api.background import Background
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.data.caption_edit import Edit, apply_changes, changes, statistics
from lib_sdtrain.data.captions import split_tags
from lib_sdtrain.data.concepts import check_folder
from lib_sdtrain.data.journal import undo
from lib_sdtrain.data.prepare import check_folders, move_tagged, resize
from lib_sdtrain.data.sizes import sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, result_of
from lib_sdtrain.places import check_writable

TAGS, SHOW, WRITE, RESIZE, MOVE, UNDO = "tags", "show", "write", "resize", "move", "undo"
SHOWN_CHANGES, SHOWN_TAGS, KEPT = 50, 300, 4
Result = Generator[Event, None, dict[str, Any]]


@dataclass(frozen=True)
class Wish:
    """What is to be done: `act`, in `folder` (empty: the one of the settings), how captions change, the pictures' `tag`
    and where those that are made or moved go (`out`).
    """

    act: str
    folder: str = ""
    edit: Edit = field(default_factory=Edit)
    tag: str = ""
    out: str = ""


def wish_of(body: Mapping[str, Any]) -> Wish:
    """A wish from names and values; tags as one text between commas, or a list."""
    tags = {name: _tags(body.get(name)) for name in ("remove", "first", "last")}
    plain = {name: str(body.get(name) or "") for name in ("find", "replace")}
    edit = Edit(**plain, word=bool(body.get("word")), regex=bool(body.get("regex")), **tags)
    return Wish(str(body.get("act") or ""), str(body.get("folder") or "").strip(), edit,
                str(body.get("tag") or "").strip(), str(body.get("out") or "").strip())  # fmt: skip


def _tags(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else tuple(split_tags(str(value or "")))


@dataclass(eq=False)
class Work(Background):
    """One change; `folder` is where it can be taken back."""

    act: str
    folder: Path
    result: dict[str, Any] | None = None

    def do(self, job: Callable[[CancelToken], Result]) -> None:
        """Do it to its end."""
        self.result = result_of(job(self.token), self.tell)

    def as_dict(self) -> dict[str, Any]:
        """For the page."""
        return {**super().as_dict(), "act": self.act, "folder": str(self.folder), "result": self.result}


class PreparingService:
    """Changes to captions and pictures, one at a time."""

    def __init__(self, train: TrainService) -> None:
        self.train = train
        self._works: OrderedDict[str, Work] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, choice: Choice, wish: Wish) -> Work:
        """Begin what is wished for. Raises `UserError` for mistakes that show at once."""
        job, folder = self._job(choice, wish)
        work = Work(wish.act, folder, where=wish.act)
        with self._lock:
            if any(not one.done.is_set() for one in self._works.values()):
                raise UserError("another change is under way", where="act", fix="wait for it, or stop it")
            self._works[work.id] = work
            while len(self._works) > KEPT:
                self._works.popitem(last=False)
        work.begin(lambda: work.do(job), "sdtrain-preparing")
        return work

    def view(self, name: str = "") -> dict[str, Any] | None:
        """Where a piece of work is, without a name the last one; None where there is none."""
        work = self._works.get(name or next(reversed(self._works), ""))
        return work.as_dict() if work else None

    def find(self, name: str) -> Work | None:
        """A piece of work by its id."""
        return self._works.get(name)

    def stop(self, name: str) -> bool:
        """Stop it; whether there was something to stop. What was done until then can be taken back."""
        work = self._works.get(name)
        return work is not None and work.stop()

    def _job(self, choice: Choice, wish: Wish) -> tuple[Callable[[CancelToken], Result], Path]:
        """The work, and the folder in which it can be taken back."""
        settings = self.train.resolve(choice).settings
        named = [concept.instance_dir for concept in settings.data.concepts]
        if not wish.folder and len(named) != 1:
            raise UserError(
                f"the settings name {len(named)} folders of pictures", where="folder", fix="say which one is meant"
            )
        folder = check_folder(str(self.train.host.allowed_path(wish.folder or named[0], "folder")), "folder")
        if wish.act in (RESIZE, MOVE):
            return self._pictures(settings.data, folder, wish)
        acts: dict[str, Callable[[CancelToken], Result]] = {
            TAGS: partial(_count, folder), SHOW: partial(_show, folder, wish.edit),
            WRITE: partial(_write, folder, wish.edit), UNDO: partial(_undo, folder, self.train.host.allowed_path),
        }  # fmt: skip
        if wish.act not in acts:
            known = ", ".join((*acts, RESIZE, MOVE))
            raise UserError(f"{wish.act!r} is not known", where="act", fix=f"one of {known}")
        if wish.act in (SHOW, WRITE) and not _changes_something(wish.edit):
            raise UserError("nothing is to be changed", where="find", fix="fill in one of the boxes")
        return acts[wish.act], folder

    def _pictures(self, data: Any, folder: Path, wish: Wish) -> tuple[Callable[[CancelToken], Result], Path]:
        if not wish.out:
            raise UserError("no folder for the result is given", where="out", fix="name one")
        if wish.act == MOVE and not wish.tag:
            raise UserError("no tag is given", where="tag", fix="write the tag of the pictures to move")
        out = self.train.host.allowed_path(wish.out, "out")
        problems = Problems()
        for check in (lambda: check_folders(folder, out), lambda: check_writable(out, "out")):
            try:
                check()
            except UserError as error:
                problems.absorb(error, lambda where: "out")
        problems.raise_if_any()
        if wish.act == MOVE:
            return lambda token: _finished(move_tagged(folder, out, wish.tag, token), out), out
        return lambda token: _finished(resize(folder, out, sizing_of(data), data.pad_color, token), out), out


def _changes_something(edit: Edit) -> bool:
    return bool(edit.find or edit.remove or edit.first or edit.last)


def _count(folder: Path, token: CancelToken) -> Result:
    found = yield from statistics(folder, token)
    tags = list(found["tags"].items())
    return {**found, "tags": tags[:SHOWN_TAGS], "more": max(0, len(tags) - SHOWN_TAGS), "folder": str(folder)}


def _show(folder: Path, edit: Edit, token: CancelToken) -> Result:
    found = yield from changes(folder, edit, token)
    rows = [{"file": str(one.path.relative_to(folder)), "before": one.before.strip(), "after": one.after.strip()}
            for one in found[:SHOWN_CHANGES]]  # fmt: skip
    return {"folder": str(folder), "captions": len(found), "changes": rows}


def _write(folder: Path, edit: Edit, token: CancelToken) -> Result:
    found = yield from changes(folder, edit, token)
    yield from apply_changes(folder, found, token)
    return {"folder": str(folder), "captions": len(found)}


def _undo(folder: Path, allowed: Callable[[str, str], object], token: CancelToken) -> Result:
    token.check()
    yield Phase(name="taking back", done=0, total=1)
    return {"folder": str(folder), "files": undo(folder, allowed)}


def _finished(events: Any, out: Path) -> Result:
    """The document of an engine's events; `folder` is where the change can be taken back."""
    result: dict[str, Any] = {}
    for event in events:
        if isinstance(event, Finished):
            result = event.result
        yield event
    return {**result, "folder": str(out)}
