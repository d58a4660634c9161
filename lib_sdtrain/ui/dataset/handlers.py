"""What the Dataset sub-tab's buttons do. The page sends one wish as JSON and gets what to follow, or mistakes."""
from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.dataset import DatasetService
from lib_sdtrain.api.preparing import PreparingService, wish_of
from lib_sdtrain.errors import UserError
from lib_sdtrain.ui.dataset.views import EDIT, PANEL
from lib_sdtrain.ui.texts import problems_html

RELOAD = "reload the page"


@dataclass(frozen=True)
class DatasetHandlers:
    """Answers of the Dataset sub-tab."""

    service: DatasetService

    def command(self, text: str, chosen: Callable[[], Choice]) -> str:
        """Do what the page asks for: `{"do": "look", "folder": text, "id": last, "again": bool}` or
        `{"do": "stop", "id": id}`. `chosen` is what the Train form holds. The page follows `data-look`.
        """
        try:
            wish = json.loads(text or "{}")
        except ValueError:
            return problems_html(UserError("the page sent no JSON", fix=RELOAD).problems, PANEL)
        try:
            if not isinstance(wish, dict) or wish.get("do") not in ("look", "stop"):
                raise UserError("this wish is not known", where="do", fix=RELOAD)
            name = str(wish.get("id") or "")
            if wish["do"] == "stop":
                self.service.stop(name)
                return _following(name)
            last = "" if wish.get("again") else name
            return _following(self.service.look(chosen(), str(wish.get("folder") or ""), last).id)
        except UserError as error:
            return problems_html(error.problems, PANEL)


@dataclass(frozen=True)
class PreparingHandlers:
    """Answers of the part that changes captions and pictures."""

    service: PreparingService
    _count: Iterator[int] = field(default_factory=itertools.count)

    def command(self, text: str, chosen: Callable[[], Choice]) -> str:
        """Begin what the page asks for (`preparing.wish_of`), or stop `{"act": "stop", "id": id}`. The page follows
        `data-work`; answers are numbered, so that it takes each once.
        """
        return f"<div data-answer='{next(self._count)}'>{self._answer(text, chosen)}</div>"

    def _answer(self, text: str, chosen: Callable[[], Choice]) -> str:
        try:
            wish = json.loads(text or "{}")
        except ValueError:
            return problems_html(UserError("the page sent no JSON", fix=RELOAD).problems, EDIT)
        try:
            if not isinstance(wish, dict):
                raise UserError("this wish is not known", where="act", fix=RELOAD)
            if wish.get("act") == "stop":
                name = str(wish.get("id") or "")
                self.service.stop(name)
                return _worked(name)
            return _worked(self.service.begin(chosen(), wish_of(wish)).id)
        except UserError as error:
            return problems_html(error.problems, EDIT)


def _worked(name: str) -> str:
    return f"<p hidden data-work='{html.escape(name)}'></p>"


def _following(name: str) -> str:
    return f"<p hidden data-look='{html.escape(name)}'></p>"
