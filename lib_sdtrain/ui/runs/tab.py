"""The Runs sub-tab: its places and the one way in which the page acts."""
from __future__ import annotations

from typing import Any

import gradio as gr

from lib_sdtrain.api.services import Services
from lib_sdtrain.ui.runs.handlers import RunsHandlers
from lib_sdtrain.ui.runs.views import PANEL, VIEW_HTML
from lib_sdtrain.ui.seam import listen

ASKED = "() => [window.sdtrain ? window.sdtrain.asked : '{}']"
"""What the page has put down before it pressed a hidden button."""


class RunsTab:
    """Builds the sub-tab and attaches its handlers."""

    def __init__(self, services: Services) -> None:
        self.handlers = RunsHandlers(services)
        with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page"]):
            self.message = gr.HTML("", elem_id=f"{PANEL}_message")
            gr.HTML(VIEW_HTML)
            self.wish = gr.Textbox(visible=False, elem_id=f"{PANEL}_wish")
            self.command: Any = gr.Button("command", visible=False, elem_id=f"{PANEL}_command")
        listen(self.command.click, self.handlers.command, [self.wish], [self.message], js=ASKED)
