"""Our page in the WebUI's settings: what belongs to this machine, never to a run."""
from __future__ import annotations

from pathlib import Path

import gradio as gr
from modules import paths_internal, shared

OUTPUT_DIR, ALLOWED_ROOTS, POLL_SECONDS = "sdtrain_output_dir", "sdtrain_allowed_roots", "sdtrain_poll_seconds"
_SECTION = ("sdtrain", "SD Train")
_DEFAULT_OUTPUT = "outputs/sdtrain"
_DEFAULT_POLL = 0.7


def add_settings() -> None:
    """`on_ui_settings`. While other machines can reach the page, its users may not move the fence around them."""
    local = not shared.cmd_opts.webui_is_non_local and not shared.cmd_opts.hide_ui_dir_config
    here = {"section": _SECTION, "category_id": "training"}
    fenced = {**here, "restrict_api": True}
    folder = {"placeholder": _DEFAULT_OUTPUT, "visible": local}
    output = shared.OptionInfo("", "Folder for runs, presets and histories", gr.Textbox, folder, **fenced)
    shared.opts.add_option(OUTPUT_DIR, output.info(f"empty: {_DEFAULT_OUTPUT} in the data folder").needs_restart())
    lines = {"lines": 2, "placeholder": "one folder a line", "visible": local}
    roots = shared.OptionInfo("", "Further folders that the page may use", gr.Textbox, lines, **fenced)
    roots.info("with --listen or --share, when it may not use them all; not to be changed from there")
    shared.opts.add_option(ALLOWED_ROOTS, roots)
    steps = {"minimum": 0.3, "maximum": 10, "step": 0.1}
    poll = shared.OptionInfo(_DEFAULT_POLL, "Seconds between two looks at a running job", gr.Slider, steps, **here)
    shared.opts.add_option(POLL_SECONDS, poll.info("curve and preview pictures; more for a slow connection"))


def output_dir() -> Path:
    """Where runs, presets and histories are kept."""
    chosen = str(shared.opts.data.get(OUTPUT_DIR) or "").strip()
    return Path(paths_internal.data_path) / Path(chosen or _DEFAULT_OUTPUT).expanduser()


def allowed_roots() -> list[Path]:
    """The folders of the setting; lines that name none count for nothing."""
    lines = str(shared.opts.data.get(ALLOWED_ROOTS) or "").splitlines()
    found = [Path(line.strip()).expanduser() for line in lines if line.strip()]
    return [path for path in found if path.is_absolute()]
