"""The Runs sub-tab: its places and the one way in which the page acts."""
from __future__ import annotations

from typing import Any

import gradio as gr

from lib_sdtrain.api.services import Services
from lib_sdtrain.ui.asking import answer_wishes
from lib_sdtrain.ui.runs.handlers import RunsHandlers
from lib_sdtrain.ui.runs.views import PANEL, VIEW_HTML


class RunsTab:
    """Builds the sub-tab and attaches its handlers."""

    def __init__(self, services: Services) -> None:
        self.handlers = RunsHandlers(services)
        with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page"]):
            self.message = gr.HTML("", elem_id=f"{PANEL}_message")
            gr.HTML(VIEW_HTML)
            self.wish = gr.Textbox(visible=False, elem_id=f"{PANEL}_wish")
            self.command: Any = gr.Button("command", visible=False, elem_id=f"{PANEL}_command")
        answer_wishes("runs", self.command.click, self.handlers.command, [self.wish], [self.message])
