"""The Runs sub-tab: what was trained here, and going on with it."""
from __future__ import annotations

import html
from typing import Any

import gradio as gr

from lib_sdtrain.api.runs import RunEntry
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.errors import UserError
from lib_sdtrain.ui.seam import listen, update
from lib_sdtrain.ui.texts import problems_html

PANEL = "sdtrain_runs"
_ENDS = {"finished": "done", "stopped": "stopped", "failed": "failed", "": "cut off"}


def runs_html(runs: list[RunEntry]) -> str:
    """A table of runs."""
    if not runs:
        return "<p class='sdtrain-note'>Nothing has been trained here yet.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(run.name)}</td><td>{run.step} of {run.total}</td><td>{_ENDS[run.end]}</td>"
        f"<td>{'can go on' if run.resumable else ''}</td></tr>"
        for run in runs
    )
    return f"<table class='sdtrain-table'><tr><th>Run</th><th>Steps</th><th>State</th><th></th></tr>{rows}</table>"


class RunsTab:
    """Builds the sub-tab and attaches its handlers."""

    def __init__(self, service: TrainService) -> None:
        self.service = service
        with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page"]):
            self.table = gr.HTML("", elem_id=f"{PANEL}_table")
            with gr.Row(elem_classes=["sdtrain-row"]):
                self.choice = gr.Dropdown(
                    label="Run", choices=[], elem_id=f"{PANEL}_choice", info="A run that can go on from where it was.",
                )
                self.length = gr.Textbox(
                    label="Until", placeholder="as it was", elem_id=f"{PANEL}_length",
                    info="A new length for the whole run, for instance 1200; empty leaves it.",
                )
                self.resume = gr.Button("Go on", variant="primary", elem_id=f"{PANEL}_resume")
            self.message = gr.HTML("", elem_id=f"{PANEL}_message")
            refresh = gr.Button("Look again", size="sm", elem_id=f"{PANEL}_refresh")
        listen(refresh.click, self._refreshed, None, [self.table, self.choice])
        listen(self.resume.click, self._resumed, [self.choice, self.length], [self.message])

    def _refreshed(self) -> tuple[str, Any]:
        runs = self.service.runs()
        names = [run.name for run in runs if run.resumable]
        return runs_html(runs), update(choices=names, value=names[0] if names else None)

    def _resumed(self, run: str | None, length: str) -> str:
        changes = {"train.length": length.strip()} if length.strip() else {}
        try:
            self.service.resume(run or "", changes)
        except UserError as error:
            return problems_html(error.problems)
        return "<p class='sdtrain-note'>It goes on; see Train.</p>"
