"""Looking at the pictures of a run before it is started: read in the background, kept for the pages that ask."""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from lib_sdtrain.api.background import DONE, Background
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.data.concepts import check_folder
from lib_sdtrain.data.pictures import BadPicture
from lib_sdtrain.data.thumbnails import thumbnail
from lib_sdtrain.events import result_of
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.settings.run_data import CLASS_FOLDER

READING = "reading"
KEPT, KEPT_THUMBNAILS, MOST_ROWS = 4, 2000, 200
FIRST_NOTICES = 5
OWN_FILES: Mapping[str, Any] = {
    "metadata_file": "", "mask_dir": "", "picture_weights": "", "weight_column": "", "group_weights": {},
    "group_weights_file": "", "class_dir": "", "class_prompt": "", "class_from": CLASS_FOLDER,
}
"""What belongs to a concept's own folder and not to another one."""


class Pictures(Protocol):
    """What the engine found (`train.survey.Survey`)."""

    def document(self) -> dict[str, Any]:
        """What the data set comes to."""

    def page(self, name: str, first: int, count: int, search: str = "") -> dict[str, Any]:
        """Rows of a list."""

    def picture(self, number: int) -> Any:
        """A picture with its `path`, None where there is none."""


@dataclass(eq=False)
class Look(Background):
    """One reading of a data set and what came of it."""

    MOST_NOTICES, SUBJECT = FIRST_NOTICES, "reading"

    settings: RunSettings
    folder: str
    state: str = field(default=READING, kw_only=True)
    where: str = field(default="dataset", kw_only=True)
    pictures: Pictures | None = None
    report: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the page: where it is, and the report when there is one."""
        return {**super().as_dict(), "folder": self.folder, "report": self.report}


class DatasetService:
    """Data sets that are looked at. One is read at a time; the last few stay to be looked at."""

    def __init__(self, train: TrainService) -> None:
        self.train = train
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._thumbnail = lru_cache(maxsize=KEPT_THUMBNAILS)(_made)

    def look(self, choice: Choice, folder: str = "", last: str = "") -> Look:
        """Begin to read the pictures of a choice, or those of a folder as this choice would use them.

        The look `last` goes on or stays where it is of the same. Raises `UserError` for mistakes that show at once.
        """
        settings = self.train.resolve(choice).settings
        if folder.strip():
            settings = _with_folder(settings, folder.strip(), self.train)
        problems = self.train.forbidden(settings)
        if not settings.data.concepts:
            problems.add("no pictures are chosen", where="folder", fix="name a folder, or choose pictures on Train")
        problems.raise_if_any()
        before = self.find(last)
        if before and before.settings == settings and before.state in (READING, DONE):
            return before
        look = Look(settings, folder.strip() or ", ".join(c.instance_dir for c in settings.data.concepts))
        with self._lock:
            self._looks[look.id] = look
            while len(self._looks) > KEPT:
                _, old = self._looks.popitem(last=False)
                old.token.stop_now()
        look.begin(lambda: self._read(look), "sdtrain-dataset")
        return look

    def _read(self, look: Look) -> None:
        with self._reading:
            look.token.check()
            look.pictures = result_of(self.train.engine.survey(look.settings, self.train.place, look.token), look.tell)
            look.report = self.train.timed(look.settings, look.pictures.document())

    def find(self, name: str) -> Look | None:
        """A look by its id; one that has been put aside for newer ones is None."""
        with self._lock:
            return self._looks.get(name)

    def view(self, name: str) -> dict[str, Any] | None:
        """Where a look is, and its report."""
        look = self.find(name)
        return look.as_dict() if look else None

    def page(self, name: str, which: str, first: int, count: int, search: str) -> dict[str, Any] | None:
        """A page of a list of the pictures; None while there is nothing to show."""
        look = self.find(name)
        if look is None or look.pictures is None:
            return None
        return look.pictures.page(which, first, min(count, MOST_ROWS), search)

    def picture(self, name: str, number: int) -> bytes | None:
        """A thumbnail (JPEG) of a picture that a look has found; None for anything else."""
        look = self.find(name)
        found = look.pictures.picture(number) if look and look.pictures else None
        try:
            return self._thumbnail(found.path, found.sha256) if found else None
        except BadPicture:
            return None

    def stop(self, name: str) -> bool:
        """Stop reading; whether there was something to stop."""
        look = self.find(name)
        return look is not None and look.stop()

    def close(self) -> None:
        """Stop everything."""
        with self._lock:
            looks = list(self._looks.values())
        for look in looks:
            look.token.stop_now()


def _made(path: Path, content: str) -> bytes:
    """`content` is the picture's hash: a changed one gets another thumbnail."""
    del content
    return thumbnail(path)


def _with_folder(settings: RunSettings, folder: str, train: TrainService) -> RunSettings:
    """The settings with one concept, whose pictures are those of a folder."""
    allowed = train.host.allowed_path(folder, "folder")
    path = check_folder(str(allowed), "folder")
    first = settings.data.concepts[0] if settings.data.concepts else Concept(instance_prompt=path.name)
    weighting = "none" if first.weighting == "tree" else first.weighting
    concept = replace(first, name=path.name, instance_dir=str(path), weighting=weighting, **OWN_FILES)
    return replace(settings, data=replace(settings.data, concepts=(concept,)))

