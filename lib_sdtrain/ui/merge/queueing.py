"""Merges in the queue, and the form filled from an earlier one that another sub-tab names."""
from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from lib_sdtrain.api.merging import MergeOutlook
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.queue_kinds import MERGE
from lib_sdtrain.errors import UserError
from lib_sdtrain.ui.asking import WISHED, wish_answered
from lib_sdtrain.ui.merge.tab import MergeTab
from lib_sdtrain.ui.merge.views import outlook_html
from lib_sdtrain.ui.seam import listen, update


def attach_queue(tab: MergeTab, queue: Queue) -> None:
    """Join the Merge sub-tab's “Add to queue” to the queue, and its hidden button to its list of earlier merges."""

    def queued(data: Mapping[Any, Any]) -> dict[Any, Any]:
        try:
            task = queue.add(MERGE, tab.handlers.form(tab._values(data)))
        except UserError as error:
            return {tab.more["plan"]: outlook_html(MergeOutlook(problems=tuple(error.problems)))}
        place = queue.brief()["waiting"]
        waits = f"waits in the queue, number {place}" if place else "begins now"
        note = f"<p class='sdtrain-note sdtrain-queued'>✓ {html.escape(task.label)} {waits}.</p>"
        values = {**tab._values(data), "name": ""}
        return {tab.more["plan"]: note + tab.handlers.plan(values), tab.form["name"]: ""}

    def chosen(asked: str) -> Any:
        labels = tab.service.history.labels()
        return update(choices=[*labels, *tab.service.files.titles()], value=_source(asked, labels))

    listen(tab.more["enqueue"].click, queued, set(tab.names), [tab.more["plan"], tab.form["name"]])
    first = listen(tab.more["fill"].click, chosen, [tab.more["source"]], [tab.more["again"]], js=WISHED)
    filled = tab.asking.fill(first.then, tab._filled, {*tab.names, tab.more["again"]}, tab.filled_parts)
    tab.asking.ask(filled)
    wish_answered("merge", filled)


def _source(asked: str, labels: list[str]) -> str:
    """The entry of the list that `{"out": name, "sha256": digest}` means, else the words themselves."""
    try:
        wish = json.loads(asked or "{}")
    except ValueError:
        return ""
    if not isinstance(wish, dict):
        return ""
    digest = str(wish.get("sha256") or "")[:10]
    known = next((label for label in labels if digest and f"[{digest}]" in label), None)
    return known or str(wish.get("out") or "")
