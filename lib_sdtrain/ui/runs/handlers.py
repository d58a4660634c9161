"""What can be done on the Runs sub-tab. The page sends one wish as JSON and gets a line to show."""
from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_sdtrain.api.history import MERGE
from lib_sdtrain.api.origin import origin_of
from lib_sdtrain.api.removal import RUN, STATE, Removed
from lib_sdtrain.api.services import Services
from lib_sdtrain.errors import UserError
from lib_sdtrain.jobs import Busy
from lib_sdtrain.ui.runs.views import PANEL
from lib_sdtrain.ui.texts import problems_html, size_text


@dataclass(frozen=True)
class RunsHandlers:
    """Answers of the Runs sub-tab."""

    services: Services
    _count: Iterator[int] = field(default_factory=itertools.count)

    def command(self, text: str) -> str:
        """Do what the page asks for, `{"do": name, ...}`; what to show about it.

        Answers are numbered: the page sees by the change that there is one, also when it has the same words again.
        """
        return f"<div data-answer='{next(self._count)}'>{self._answer(text)}</div>"

    def _answer(self, text: str) -> str:
        try:
            wish = json.loads(text or "{}")
            name = wish.get("do") if isinstance(wish, dict) else None
            act = self._acts().get(str(name))
            if name == "origin":
                return self._origin(str(wish.get("infotext") or ""))
            if act is None:
                raise UserError(f"{name!r} is not known", where="do", fix="reload the page")
            return _note(act({key: str(value) for key, value in wish.items()}))
        except UserError as error:
            return problems_html(error.problems, PANEL)
        except ValueError:
            return problems_html(UserError("the page sent no JSON", fix="reload the page").problems, PANEL)

    def _origin(self, infotext: str) -> str:
        """Where a picture comes from; the page follows `data-choose` to the list and `data-merge` to the form."""
        found = origin_of(infotext, self.services.history, self.services.merge.files)
        place = f" data-choose='{html.escape(found.id)}'" if found.id else ""
        if found.kind == MERGE and found.file:
            place = f" data-merge='{html.escape(found.file)}'"
        return f"<p class='sdtrain-note'{place}>{html.escape(found.words)}</p>"

    def _acts(self) -> Mapping[str, Callable[[Mapping[str, str]], str]]:
        queue = self.services.queue
        return {
            "hold": lambda wish: _done(queue.hold, "Nothing more will be started."),
            "go_on": lambda wish: _done(queue.go_on, "The queue goes on."),
            "clear": lambda wish: _done(queue.clear_ended, ""),
            "remove": lambda wish: f"{queue.remove(wish.get('id', '')).label} was taken out of the queue.",
            "move": self._move, "resume": self._resume, "delete": self._delete, "delete_file": self._delete_file,
        }

    def _move(self, wish: Mapping[str, str]) -> str:
        by = wish.get("by", "")
        if by.lstrip("-").isdigit() and len(by) < 5:
            self.services.queue.move(wish.get("id", ""), int(by))
        return ""

    def _resume(self, wish: Mapping[str, str]) -> str:
        """Go on at once, or in its turn when the machine is busy."""
        run, length = wish.get("run", ""), wish.get("length", "").strip()
        changes: dict[str, Any] = {"train.length": length} if length else {}
        try:
            job = self.services.train.resume(run, changes)
            return f"{job.label} goes on; see Train."
        except Busy:
            task = self.services.queue.add("resume", {"run": run, "settings": changes})
            return f"{task.label} waits in the queue."

    def _delete(self, wish: Mapping[str, str]) -> str:
        what = wish.get("what", RUN)
        removed = self.services.removal.remove(wish.get("run", ""), what)
        gone = "Its saved state is gone; it cannot go on any more." if what == STATE else "The run is gone."
        return f"{gone} {_freed(removed)}"

    def _delete_file(self, wish: Mapping[str, str]) -> str:
        removed = self.services.removal.remove_file(wish.get("run", ""), wish.get("file", ""))
        return f"{wish.get('file')} is gone. {_freed(removed)}"


def _done(act: Callable[[], None], words: str) -> str:
    act()
    return words


def _freed(removed: Removed) -> str:
    left = f" Left, because SD Train did not write it or it is a result: {', '.join(removed.left[:5])}" \
        if removed.left else ""  # fmt: skip
    more = f" and {len(removed.left) - 5} more" if len(removed.left) > 5 else ""
    return f"{size_text(removed.bytes)} are free again.{left}{more}"


def _note(words: str) -> str:
    return f"<p class='sdtrain-note'>{html.escape(words)}</p>" if words else ""
