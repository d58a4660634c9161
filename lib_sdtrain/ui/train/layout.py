"""The Train sub-tab's components, in the order a person needs them. What they do is in `handlers.py`."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from lib_sdtrain.settings.fields import BASIC, Declared, groups_of
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.ui.asking import ACTS
from lib_sdtrain.ui.controls import PANEL, Control, make_control
from lib_sdtrain.ui.train.concepts import CONCEPTS, FIRST
from lib_sdtrain.ui.train.form import INSTANCE_DIR, form_items, idle_html
from lib_sdtrain.ui.train.run_view import RUN_HTML

NO_PRESET = "my own settings"
LOAD_HTML = """<label class="sdtrain-file" title="A preset, a run's config.yaml, or a PNG drawn with a model that was
trained here">Load a file <small>.yaml, .json or .png</small><input type="file" data-part="load-file"
accept=".yaml,.yml,.json,.png"></label>"""
#: Title of a section and the setting groups whose basic settings it holds.
SECTIONS = (("1", "Model", ("model", "method")), ("2", "Subject", (FIRST, "data")), ("3", "How long", ()))


@dataclass
class TrainParts:
    """The components that handlers read and write; `controls` by setting path."""

    controls: dict[str, Control] = field(default_factory=dict)
    hide_folders: bool = False
    preset: Any = None
    base_preset: Any = None
    preset_name: Any = None
    save_preset: Any = None
    yaml_button: Any = None
    command_button: Any = None
    copied: Any = None
    copied_text: Any = None
    kept: Any = None
    delete_preset: Any = None
    file_button: Any = None
    refresh: Any = None
    add_toybox: Any = None
    concepts: Any = None
    concept: Any = None
    add_concept: Any = None
    remove_concept: Any = None
    forget: Any = None
    ended: Any = None
    uploads: Any = None
    thumbnails: Any = None
    identifier: Any = None
    class_word: Any = None
    keep_class: Any = None
    reading: Any = None
    message: Any = None
    plan: Any = None
    idle: Any = None
    start: Any = None
    enqueue: Any = None
    fill: Any = None
    source: Any = None
    load: Any = None
    replan: Any = None
    job: Any = None
    stops: dict[str, Any] = field(default_factory=dict)
    resume: Any = None
    resumed: Any = None


def _id(name: str) -> str:
    return f"{PANEL}_{name}"


def build_train(values: dict[str, Any], hosted: bool, hide_folders: bool = False) -> TrainParts:
    """Render the sub-tab where Gradio stands, showing `values` by path; `hide_folders`: controls of folders."""
    parts = TrainParts(hide_folders=hide_folders)
    with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page"]):
        _run_panel(parts, hosted)
        with gr.Column(elem_id=_id("form"), elem_classes=["sdtrain-form"]):
            _preset_row(parts)
            by_section = _basic_by_section()
            for number, title, _ in SECTIONS:
                gr.HTML(f"<h3 class='sdtrain-section'><span>{number}</span> {title}</h3>")
                if title == "Subject":
                    _subject_top(parts, values)
                _grid(parts, by_section[title], values)
                if title == "Model":
                    _model_tools(parts, hosted)
                if title == "Subject":
                    _concept_row(parts, values)
            _advanced(parts, values)
            parts.idle = gr.HTML(idle_html(values), elem_id=_id("idle"))
            _keeping(parts)
            _plan_and_start(parts)
    return parts


def _basic_by_section() -> dict[str, list[tuple[str, Declared]]]:
    placed: dict[str, list[tuple[str, Declared]]] = {title: [] for _, title, _ in SECTIONS}
    for path, item in form_items():
        if item.meta.level != BASIC:
            continue
        head = FIRST if path.startswith(FIRST) else path.partition(".")[0]
        title = next((title for _, title, heads in SECTIONS if head in heads), SECTIONS[-1][1])
        placed[title].append((path, item))
    return placed


def _grid(
    parts: TrainParts, items: list[tuple[str, Declared]], values: dict[str, Any]
) -> None:
    with gr.Row(elem_classes=["sdtrain-grid"]):
        for path, item in items:
            if path not in parts.controls:
                _control(parts, path, item, values)


def _control(parts: TrainParts, path: str, item: Declared, values: dict[str, Any]) -> None:
    choices = [] if item.meta.kind == "checkpoint" else None  # filled when a page opens
    hidden = parts.hide_folders and item.meta.kind == "folder"
    parts.controls[path] = make_control(path, item, values[path], choices, hidden=hidden)


def _preset_row(parts: TrainParts) -> None:
    with gr.Row(elem_classes=["sdtrain-row"]):
        parts.preset = gr.Dropdown(
            label="Preset", info="Settings to begin with. What you changed yourself stays.", elem_id=_id("preset"),
            choices=[NO_PRESET], value=NO_PRESET,
        )
        parts.base_preset = gr.State("")
        parts.forget = gr.Button(
            "Forget my changes", elem_id=_id("forget"), elem_classes=[ACTS], size="sm", min_width=150
        )
    parts.message = gr.HTML("", elem_id=_id("message"))


def _model_tools(parts: TrainParts, hosted: bool) -> None:
    with gr.Row(elem_classes=["sdtrain-row", "sdtrain-tools"]):
        parts.refresh = gr.Button("Look for new checkpoints", elem_id=_id("refresh"), size="sm", min_width=190, scale=0)
        parts.add_toybox = gr.Button(
            "Add toybox to this WebUI", elem_id=_id("add_toybox"), size="sm", min_width=190, scale=0, visible=hosted
        )


def _concept_row(parts: TrainParts, values: dict[str, Any]) -> None:
    parts.concepts = gr.State(values[CONCEPTS])
    with gr.Row(elem_classes=["sdtrain-row", "sdtrain-tools", "sdtrain-concepts"]):
        parts.concept = gr.Radio(
            label="Concept", choices=[], visible=False, elem_id=_id("concept"), elem_classes=[ACTS],
            info="Which of the subjects is shown below; its name and weight are under More settings.",
        )
        parts.add_concept = gr.Button(
            "Learn another subject too", elem_id=_id("add_concept"), elem_classes=[ACTS], size="sm", min_width=190,
            scale=0,
        )
        parts.remove_concept = gr.Button(
            "Remove this subject", elem_id=_id("remove_concept"), elem_classes=[ACTS], size="sm", min_width=150,
            scale=0, visible=False,
        )


def _subject_top(parts: TrainParts, values: dict[str, Any]) -> None:
    with gr.Row(elem_classes=["sdtrain-row", "sdtrain-pictures"]):
        _control(parts, INSTANCE_DIR, dict(form_items())[INSTANCE_DIR], values)
        parts.uploads = gr.File(
            label=f"{'D' if parts.hide_folders else 'or d'}rop pictures here (and their .txt captions)",
            file_count="multiple", elem_id=_id("uploads"), height=112,
        )
    parts.thumbnails = gr.HTML("", elem_id=_id("thumbnails"))
    with gr.Row(elem_classes=["sdtrain-row"]):
        parts.identifier = gr.Textbox(
            label="Identifier", value="sks", elem_id=_id("identifier"), info="A rare word that will call your subject."
        )
        parts.class_word = gr.Textbox(
            label="Class", elem_id=_id("class_word"), placeholder="dog",
            info="What kind of thing it is, in plain words.",
        )
        parts.keep_class = gr.Checkbox(
            label="Keep the class", value=True, elem_id=_id("keep_class"),
            info="Trains on ordinary pictures of the class too (prior preservation), so that it is not forgotten.",
        )
    parts.reading = gr.HTML("", elem_id=_id("reading"))


def _advanced(parts: TrainParts, values: dict[str, Any]) -> None:
    with gr.Accordion("More settings", open=False, elem_id=_id("more")):
        gr.HTML(
            "<input type='search' class='sdtrain-search' data-part='search' placeholder='Search settings: name or help'"
            " aria-label='Search settings'>"
        )
        for part in groups_of(RunSettings):
            items = [
                (path, item) for path, item in form_items()
                if item.meta.level != BASIC and path.startswith(part.path + ".")
            ]
            if items:
                with gr.Column(elem_classes=["sdtrain-group"]):
                    gr.HTML(f"<h4 class='sdtrain-group-title'>{part.label} <small>{part.help}</small></h4>")
                    _grid(parts, items, values)
        with gr.Column(elem_classes=["sdtrain-group"]):
            _grid(parts, [(path, item) for path, item in form_items() if "." not in path], values)


def _keeping(parts: TrainParts) -> None:
    with gr.Accordion("Save or copy these settings", open=False, elem_id=_id("keeping")):
        with gr.Row(elem_classes=["sdtrain-row"]):
            parts.preset_name = gr.Textbox(
                label="Name", info="Saves these settings as a preset of your own.", elem_id=_id("preset_name")
            )
            parts.save_preset = gr.Button("Save preset", elem_id=_id("save_preset"), elem_classes=[ACTS], size="sm")
            parts.delete_preset = gr.Button("Delete the chosen preset", elem_id=_id("delete_preset"), size="sm")
        with gr.Row(elem_classes=["sdtrain-row"]):
            acts = {"elem_classes": [ACTS], "size": "sm"}
            parts.command_button = gr.Button("Copy as command", elem_id=_id("as_command"), **acts)
            parts.yaml_button = gr.Button("Copy as YAML", elem_id=_id("as_yaml"), **acts)
            parts.file_button = gr.Button("Save as file", elem_id=_id("as_file"), **acts)
            gr.HTML(LOAD_HTML)
        parts.kept = gr.HTML("", elem_id=_id("kept"))
        parts.copied = gr.Code(label="The same run elsewhere", visible=False, elem_id=_id("copied"), interactive=False)


def _plan_and_start(parts: TrainParts) -> None:
    with gr.Row(elem_id=_id("footer"), elem_classes=["sdtrain-footer"]):
        parts.plan = gr.HTML("", elem_id=_id("plan"))
        with gr.Column(scale=0, min_width=190, elem_id=_id("starts"), elem_classes=["sdtrain-starts"]):
            parts.start = gr.Button("Start training", variant="primary", elem_id=_id("start"), elem_classes=[ACTS])
            parts.enqueue = gr.Button("Add to queue", elem_id=_id("enqueue"), elem_classes=[ACTS], size="sm")
    parts.load = gr.Button("load", visible=False, elem_id=_id("load"))
    parts.ended = gr.Button("ended", visible=False, elem_id=_id("ended"))
    parts.replan = gr.Button("replan", visible=False, elem_id=_id("replan"))
    parts.copied_text = gr.Textbox(visible=False, elem_id=_id("copied_text"))
    parts.fill = gr.Button("fill", visible=False, elem_id=_id("fill"))
    parts.job = gr.Textbox(visible=False, elem_id=_id("job"))
    parts.source = gr.Textbox(visible=False, elem_id=_id("source"))


def _run_panel(parts: TrainParts, hosted: bool) -> None:
    with gr.Column(elem_id=_id("run"), elem_classes=["sdtrain-run-panel"]):
        gr.HTML(RUN_HTML)
        with gr.Row(elem_classes=["sdtrain-row", "sdtrain-stops"]):
            for how, label in (("save", "Stop and save"), ("go_on", "Save, go on"), ("now", "Stop now")):
                variant = "stop" if how == "now" else "secondary"
                parts.stops[how] = gr.Button(label, variant=variant, elem_id=_id(f"stop_{how}"))
            gr.Button("Set up another run", elem_id=_id("another"))
        gr.HTML("<div id='sdtrain_train_queue' class='sdtrain-note'></div>")
        with gr.Row(elem_classes=["sdtrain-row", "sdtrain-after"]):
            parts.resume = gr.Button("Go on from here", variant="primary", elem_id=_id("resume"))
            if hosted:
                gr.Button("Use it in the WebUI", variant="primary", elem_id=_id("use"))
            gr.Button("Back to the settings", elem_id=_id("again"))
        parts.resumed = gr.HTML("", elem_id=_id("resumed"))  # the form with its message is out of sight here
