"""Numbers and mistakes as people read them."""
from __future__ import annotations

import html
from collections.abc import Sequence

from lib_sdtrain.errors import Problem
from lib_sdtrain.ui.controls import PANEL, element_id

_UNITS = ("B", "KB", "MB", "GB", "TB")


def size_text(count: float) -> str:
    """Bytes for people: `2.1 GB`."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def memory_text(count: float) -> str:
    """Bytes of memory, in the units in which cards are sold: `7.9 GB` of 1024 MB each."""
    return f"{count / 2**20:.0f} MB" if count < 2**30 else f"{count / 2**30:.1f} GB"


def time_text(seconds: float) -> str:
    """A duration for people: `12 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def problems_html(problems: Sequence[Problem], panel: str = PANEL) -> str:
    """Every mistake with what to do; the page puts a copy beside the control that `data-control` names."""
    lines = "".join(
        f"<li data-control='{html.escape(element_id(problem.where, panel))}'><b>{html.escape(problem.what)}</b>"
        f"{'; ' + html.escape(problem.fix) if problem.fix else ''}"
        f"<span class='sdtrain-path'>{html.escape(problem.where)}</span></li>"
        for problem in problems
    )
    return f"<ul class='sdtrain-problems' role='alert'>{lines}</ul>"


def notes_html(notes: Sequence[str]) -> str:
    """What the user should know, a line each."""
    return "".join(f"<p class='sdtrain-note'>{html.escape(note)}</p>" for note in notes)
