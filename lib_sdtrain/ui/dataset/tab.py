"""The Dataset sub-tab: its places and the one way in which the page acts."""
from __future__ import annotations

from typing import Any

import gradio as gr

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.services import Services
from lib_sdtrain.ui.asking import answer_wishes
from lib_sdtrain.ui.dataset.handlers import DatasetHandlers, PreparingHandlers
from lib_sdtrain.ui.dataset.views import EDIT, EDIT_HTML, PANEL, VIEW_HTML
from lib_sdtrain.ui.train.tab import TrainTab


class DatasetTab:
    """Builds the sub-tab and attaches its handler, which reads the Train form."""

    def __init__(self, services: Services, train: TrainTab) -> None:
        self.handlers, self.preparing = DatasetHandlers(services.dataset), PreparingHandlers(services.preparing)
        with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page"]):
            gr.HTML(VIEW_HTML)
            self.message = gr.HTML("", elem_id=f"{PANEL}_message")
            self.wish = gr.Textbox(visible=False, elem_id=f"{PANEL}_wish")
            self.command: Any = gr.Button("command", visible=False, elem_id=f"{PANEL}_command")
            gr.HTML(EDIT_HTML)
            self.answer = gr.HTML("", elem_id=f"{EDIT}_message", visible=True, elem_classes=["sdtrain-hidden"])
            self.change: Any = gr.Button("change", visible=False, elem_id=f"{EDIT}_command")
        held = train.held

        def chosen(shown: tuple[Any, ...]) -> Choice:
            return train.chosen(dict(zip(held, shown, strict=True)))

        def asked(wish: str, *shown: Any) -> str:
            return self.handlers.command(wish, lambda: chosen(shown))

        def changed(wish: str, *shown: Any) -> str:
            return self.preparing.command(wish, lambda: chosen(shown))

        answer_wishes("dataset", self.command.click, asked, [self.wish, *held], [self.message])
        answer_wishes("preparing", self.change.click, changed, [self.wish, *held], [self.answer])
