"""The tab without the WebUI: the same page and the same routes on a server of our own."""
from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.engine import Engine
from lib_sdtrain.api.routes import add_routes
from lib_sdtrain.api.services import Services
from lib_sdtrain.errors import UserError
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
    services: Services
    server: uvicorn.Server
    thread: threading.Thread

    def close(self) -> None:
        """Stop serving; a running job is asked to save and stop, and waited for. The queue goes on another time."""
        self.services.queue.close()
        self.services.dataset.close()
        job = self.services.runner.job
        if job and job.active:
            self.services.runner.stop("save")
            job.done.wait()
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()


def scripts() -> list[Path]:
    """The page's scripts, in the order in which the WebUI would load them."""
    return sorted(SCRIPTS.glob("*.js"))


def serve(
    engine: Engine, folder: Path, host: str = "127.0.0.1", port: int | None = None, api: bool = False,
    users: Mapping[str, str] | None = None,
) -> Server:
    """Start serving and return; without a port, any that is free; the API for all or for `users` with passwords.

    Raises `UserError` when the port is taken.
    """
    services = Services(StandaloneHost(folder, local=host in LOCAL_NAMES), engine)
    theme = gr.themes.Default(font=list(FONTS), font_mono=["ui-monospace", "monospace"])
    page = build_tab(services, theme=theme, css=".gradio-container { max-width: 1320px !important; }")
    with page:
        run_on_load(page, _loader())
    page.show_api = False
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, services, Access(app, users or {}), programs=api)
    app.add_api_route("/sdtrain/v1/script/{name}", _script, methods=["GET"])
    gr.mount_gradio_app(app, page, path="/")
    _close_to_other_sites(app.routes[-1].app)
    return _started(app, services, host, port or 0)


def _started(app: FastAPI, services: Services, host: str, port: int) -> Server:
    listening = _listening(host, port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],), name="sdtrain-page", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.02)
    shown = f"[{host}]" if ":" in host else host
    return Server(f"http://{shown}:{listening.getsockname()[1]}/", services, server, thread)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        fix = "choose another with --port"
        raise UserError(f"it cannot be listened at: {error.strerror}", where=f"{host}:{port}", fix=fix) from error
    return listening


def launch(
    host: str = "127.0.0.1", port: int | None = None, folder: Path | None = None, api: bool = False,
    users: Mapping[str, str] | None = None, tell: Callable[[str], None] = logger.info,
) -> None:
    """Serve the tab until interrupted (Ctrl-C or SIGTERM), which saves and stops a running job.

    `tell` gets the page's address. Raises `UserError` when the port is taken.
    """
    from lib_sdtrain.api.training import TrainingEngine
    from lib_sdtrain.train.allocator import keep_freed_memory

    keep_freed_memory()  # the process is ours
    server = serve(TrainingEngine(), folder or Path.cwd(), host, port, api, users)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tell(server.url)
        while server.thread.is_alive():
            time.sleep(0.5)
    except KeyboardInterrupt:
        server.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def _loader() -> str:
    """JavaScript that loads the page's scripts one after the other."""
    names = [path.name for path in scripts()]
    return (
        "async () => { for (const name of " + repr(names) + ") { await new Promise((done) => {"
        " const tag = document.createElement('script'); tag.src = 'sdtrain/v1/script/' + name;"
        " tag.onload = tag.onerror = done; document.head.appendChild(tag); }); } }"
    )


def _script(name: str) -> FileResponse:
    path = next((path for path in scripts() if path.name == name), None)
    if path is None:
        raise HTTPException(404, "no such script")
    return FileResponse(path, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


def _close_to_other_sites(app: Any) -> None:
    """Gradio lets every web site talk to it; a page that can read folders must not."""
    app.user_middleware = [layer for layer in app.user_middleware if layer.cls.__name__ != "CORSMiddleware"]
    app.middleware_stack = None  # made anew, without it, at the first request
