"""Where Gradio 3 (AUTOMATIC1111, standalone) and Gradio 4 (Forge) differ."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

GRADIO_4 = int(gr.__version__.partition(".")[0]) >= 4


def listen(event: Any, fn: Callable[..., Any] | None, inputs: Any = None, outputs: Any = None, js: str = "") -> Any:
    """Attach a handler that answers at once: outside the queue, without a spinner, without a name in the API."""
    options: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "show_progress": "hidden", "queue": False}
    if js:
        options["js" if GRADIO_4 else "_js"] = js
    return event(fn, api_name=False, **options)


def update(**changes: Any) -> Any:
    """New properties for an output component."""
    return gr.update(**changes)


def forget_in_ui_config(blocks: Iterable[Any]) -> None:
    """Keep the WebUI from freezing today's defaults and ranges in its ui-config.json for ever."""
    for block in blocks:
        block.do_not_save_to_config = True


def run_on_load(page: gr.Blocks, js: str) -> None:
    """Run JavaScript when the page opens."""
    page.load(None, **{"js" if GRADIO_4 else "_js": js})
