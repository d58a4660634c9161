"""The tab inside the WebUI: what its callbacks call."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.api.access import Access, parse_users
from lib_sdtrain.api.routes import add_routes
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.api.training import TrainingEngine
from lib_sdtrain.host import webui
from lib_sdtrain.ui.tab import ELEMENT_ID, TITLE, build_tab


def service() -> TrainService:
    """The one service of this WebUI; it outlives `Reload UI`, and with it a running job."""
    return webui.kept("sdtrain_service", lambda: TrainService(webui.WebuiHost(), TrainingEngine()))


def tabs() -> list[tuple[Any, str, str]]:
    """`on_ui_tabs`: the tab, its title and its element id."""
    return [(build_tab(service()), TITLE, ELEMENT_ID)]


def routes(demo: Any, app: Any) -> None:
    """`on_app_started`: the routes, the API's only with `--api`."""
    del demo
    options = webui.options()
    add_routes(app, service(), Access(app, parse_users(options.api_auth)), programs=options.api)
