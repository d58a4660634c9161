"""The tab inside the WebUI: what its callbacks call."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.api.access import Access, parse_users
from lib_sdtrain.api.axes import Axes
from lib_sdtrain.api.routes import add_routes
from lib_sdtrain.api.services import Services
from lib_sdtrain.api.training import TrainingEngine
from lib_sdtrain.host import webui, webui_axes, webui_live, webui_script, webui_settings
from lib_sdtrain.ui.tab import ELEMENT_ID, TITLE, build_tab


def services() -> Services:
    """The services of this WebUI; they outlive `Reload UI`, and with it a running job."""
    return webui.kept("sdtrain_services", lambda: Services(webui.WebuiHost(), TrainingEngine()))


def tabs() -> list[tuple[Any, str, str]]:
    """`on_ui_tabs`: the tab, its title and its element id."""
    return [(build_tab(services()), TITLE, ELEMENT_ID)]


def routes(demo: Any, app: Any) -> None:
    """`on_app_started`: the routes, the API's only with `--api`."""
    del demo
    options = webui.options()
    before_ui()  # with --nowebui no page is built, and the plot is there all the same
    add_routes(app, services(), Access(app, parse_users(options.api_auth)), programs=options.api)


def settings() -> None:
    """`on_ui_settings`: what belongs to this machine."""
    webui_settings.add_settings()


def before_ui() -> None:
    """`on_before_ui`: our axes in the X/Y/Z plot."""
    here = services()
    axes = Axes(here.merge, here.history)
    webui_script.LiveMergeScript.before = staticmethod(axes.before)
    webui_axes.register(axes.all(), axes.ended)


def model_loaded(model: Any) -> None:
    """`on_model_loaded`: weights that came from a file end a live merge."""
    webui_live.loaded(model)
