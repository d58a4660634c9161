"""The tab without the WebUI: the same page and the same routes on a server of our own."""
from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.responses import FileResponse

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.engine import Engine
from lib_sdtrain.api.routes import add_routes
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.ui.seam import run_on_load
from lib_sdtrain.ui.tab import build_tab

SCRIPTS = Path(__file__).parents[2] / "javascript"
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
FONTS = ("system-ui", "sans-serif")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """A running page."""

    url: str
    service: TrainService
    page: gr.Blocks

    def close(self) -> None:
        """Stop serving; a running job is asked to save and stop, and waited for."""
        job = self.service.runner.job
        if job and job.active:
            self.service.runner.stop("save")
            job.done.wait()
        self.page.close()


def scripts() -> list[Path]:
    """The page's scripts, in the order in which the WebUI would load them."""
    return sorted(SCRIPTS.glob("*.js"))


def serve(
    engine: Engine, folder: Path, host: str = "127.0.0.1", port: int | None = None, api: bool = False
) -> Server:
    """Start serving and return."""
    service = TrainService(StandaloneHost(folder, local=host in LOCAL_NAMES), engine)
    theme = gr.themes.Default(font=list(FONTS), font_mono=["ui-monospace", "monospace"])
    page = build_tab(service, theme=theme, css=".gradio-container { max-width: 1320px !important; }")
    with page:
        run_on_load(page, _loader())
    app, url, _ = page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, show_api=False, share=False,
        allowed_paths=[], show_error=False,
    )
    _close_to_other_sites(app)
    add_routes(app, service, Access(app), programs=api)
    app.add_api_route("/sdtrain/v1/script/{name}", _script, methods=["GET"])
    return Server(url, service, page)


def launch(host: str = "127.0.0.1", port: int | None = None, folder: Path | None = None, api: bool = False,
           open_browser: bool = False) -> None:  # fmt: skip
    """Serve the tab until interrupted. The first Ctrl-C saves and stops a running job."""
    from lib_sdtrain.api.training import TrainingEngine

    server = serve(TrainingEngine(), folder or Path.cwd(), host, port, api)
    logger.info("SD Train is at %s", server.url)
    if open_browser:
        import webbrowser

        webbrowser.open(server.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.close()


def _loader() -> str:
    """JavaScript that loads the page's scripts one after the other."""
    names = [path.name for path in scripts()]
    return (
        "async () => { for (const name of " + repr(names) + ") { await new Promise((done) => {"
        " const tag = document.createElement('script'); tag.src = 'sdtrain/v1/script/' + name;"
        " tag.onload = tag.onerror = done; document.head.appendChild(tag); }); } }"
    )


def _script(name: str) -> FileResponse:
    from fastapi import HTTPException

    path = next((path for path in scripts() if path.name == name), None)
    if path is None:
        raise HTTPException(404, "no such script")
    return FileResponse(path, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


def _close_to_other_sites(app: Any) -> None:
    """Gradio lets every web site talk to it; a page that can read folders must not."""
    app.user_middleware = [layer for layer in app.user_middleware if layer.cls.__name__ != "CORSMiddleware"]
    app.middleware_stack = app.build_middleware_stack()
