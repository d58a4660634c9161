"""SD Train's way into the WebUI: registers callbacks and defines nothing."""
from modules import script_callbacks

from lib_sdtrain.host.webui_script import LiveMergeScript  # noqa: F401 - the WebUI takes scripts from this file's names
from lib_sdtrain.ui import hosted

script_callbacks.on_ui_tabs(hosted.tabs)
script_callbacks.on_app_started(hosted.routes)
script_callbacks.on_ui_settings(hosted.settings)
script_callbacks.on_before_ui(hosted.before_ui)
script_callbacks.on_model_loaded(hosted.model_loaded)
