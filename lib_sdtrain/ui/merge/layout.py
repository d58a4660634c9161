"""The Merge sub-tab's components, in the order a person needs them. What they do is in `handlers.py`."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from lib_sdtrain.settings.fields import Declared, declared
from lib_sdtrain.settings.merge import DTYPES, MergeSettings
from lib_sdtrain.ui.asking import ACTS
from lib_sdtrain.ui.controls import make_control, shown
from lib_sdtrain.ui.merge.figures import difference_html
from lib_sdtrain.ui.merge.u_view import u_html
from lib_sdtrain.ui.merge.views import LIVE_HTML, PANEL, PICTURES_HTML, RUN_HTML

PARAMS = ("gamma", "density", "drop_rate", "seed")
MORE = ("blocks", "arithmetic", "ema", "vae", "adjust", "discard", "presets")
AS_A = "as model A"
HALF = ",".join(["0.5"] * 26)
ROLL_OVER = ("all blocks", "all but BASE", "IN", "OUT")
ITEMS: dict[str, Declared] = {item.path: item for item in declared(MergeSettings)}


@dataclass
class MergeParts:
    """The components that handlers read and write: `form` by the name of the setting, `more` all the others."""

    form: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def _id(name: str) -> str:
    return f"{PANEL}_{name}"


def build_merge(hosted: bool, live: bool = False) -> MergeParts:
    """Render the sub-tab where Gradio stands; `live`: with the controls of live merges."""
    parts = MergeParts()
    with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page", "sdm-page"]):
        _section("1", "Models")
        _models(parts)
        _section("2", "Method")
        _method(parts)
        _section("3", "Weights")
        _weights(parts)
        _loras(parts)
        with gr.Accordion("More settings", open=False, elem_id=_id("more")):
            _more(parts)
        with gr.Accordion("See the difference: pictures from the same seeds", open=False, elem_id=_id("seeing")):
            _pictures(parts)
        with gr.Accordion("Earlier merges", open=False, elem_id=_id("earlier")):
            _history(parts)
        _footer(parts, hosted, live)
    return parts


def _section(number: str, title: str) -> None:
    gr.HTML(f"<h3 class='sdtrain-section'><span>{number}</span> {title}</h3>")


def _declared(parts: MergeParts, name: str) -> None:
    item = ITEMS[name]
    parts.form[name] = make_control(name, item, shown(item, item.default), None, PANEL).component


def _button(name: str, text: str, **options: Any) -> Any:
    return gr.Button(text, elem_id=_id(name), **{"size": "sm", **options})


def _act(name: str, text: str, **options: Any) -> Any:
    """A button that goes by what the form holds."""
    return _button(name, text, elem_classes=[ACTS], **options)


def _models(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdtrain-grid", "sdm-models"]):
        for name in ("a", "b", "c"):
            item = ITEMS[name]
            parts.form[name] = gr.Dropdown(
                label=item.meta.label, info=item.meta.help, choices=[], allow_custom_value=True, elem_id=_id(name),
                visible=name != "c",
            )
        item = ITEMS["model"]
        parts.form["model"] = gr.Dropdown(
            label=item.meta.label, info="Further fine-tunes of A.", choices=[], multiselect=True, elem_id=_id("model"),
            visible=False,
        )
    with gr.Row(elem_classes=["sdtrain-row", "sdtrain-tools"]):
        parts.more["swap"] = _act("swap", "Swap A and B", min_width=130, scale=0)
        parts.more["look"] = _button("look", "Look for new checkpoints", min_width=190, scale=0)
        parts.more["compare"] = _act("compare", "Where do A and B differ?", min_width=190, scale=0)
    parts.more["difference"] = gr.HTML(difference_html(None), elem_id=_id("difference"))


def _method(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdtrain-row", "sdm-method-row"]):
        with gr.Column(scale=1, min_width=260):
            parts.form["method"] = gr.Dropdown(
                label="Method", choices=[], elem_id=_id("method"), info="The formula of every weight."
            )
            with gr.Row(elem_classes=["sdtrain-grid", "sdm-params"]):
                for name in PARAMS:
                    _declared(parts, name)
                    parts.form[name].visible = False
        with gr.Column(scale=2, min_width=320):
            parts.more["about"] = gr.HTML("", elem_id=_id("about"))


def _weights(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdtrain-row"]):
        parts.more["preset"] = gr.Dropdown(
            label="Preset", choices=[], elem_id=_id("preset"), scale=1, min_width=200,
            info="Fills the weights that the sliders show.",
        )
        parts.form["weights_alpha"] = gr.Textbox(
            label="Weights (α), BASE first", value=HALF, lines=2, max_lines=3, elem_id=_id("weights_alpha"), scale=3,
            info="0 is A, 1 is B, for most methods. Sliders and text follow each other.",
        )
    parts.form["weights_beta"] = gr.Textbox(
        label="Weights (β), BASE first", value=HALF, lines=2, max_lines=3, elem_id=_id("weights_beta"), visible=False,
        info="The second weight of this method; the sliders show it when β is chosen.",
    )
    parts.more["notes"] = gr.HTML("", elem_id=_id("notes"))
    parts.more["unet"] = gr.HTML(u_html(), elem_id=_id("unet"))
    parts.more["active"] = gr.Textbox("alpha", visible=False, elem_id=_id("active"))
    _dice(parts)


def _dice(parts: MergeParts) -> None:
    with gr.Accordion("Dice, element weights, presets of your own", open=False, elem_id=_id("dicing")):
        with gr.Row(elem_classes=["sdtrain-row"]):
            parts.more["dice_seed"] = gr.Textbox(
                label="Dice seed", elem_id=_id("dice_seed"), placeholder="a new one each time", min_width=140,
                info="The same seed gives the same weights.",
            )
            parts.more["dice_low"] = gr.Number(label="From", value=0.0, elem_id=_id("dice_low"), min_width=90)
            parts.more["dice_high"] = gr.Number(label="To", value=1.0, elem_id=_id("dice_high"), min_width=90)
            parts.more["dice_over"] = gr.Dropdown(
                label="Over", choices=list(ROLL_OVER), value=ROLL_OVER[0], elem_id=_id("dice_over"), min_width=140,
                info="Or write R, U or X for single blocks.",
            )
            parts.more["roll"] = _act("roll", "Roll the dice", min_width=130)
        _declared(parts, "elements")
        with gr.Row(elem_classes=["sdtrain-row"]):
            parts.more["preset_name"] = gr.Textbox(
                label="Name", elem_id=_id("preset_name"), info="Keeps the weights of the sliders as a preset."
            )
            parts.more["save_preset"] = _act("save_preset", "Save preset", min_width=130)


def _loras(parts: MergeParts) -> None:
    with gr.Accordion("Add LoRAs", open=False, elem_id=_id("loras")):
        parts.form["lora"] = gr.Textbox(
            label="LoRAs", lines=2, elem_id=_id("lora"), placeholder="one a line: name:0.8",
            info="NAME:WEIGHT or NAME:WEIGHT:BLOCKS, added to the merged weights. BLOCKS are block weights that "
            "multiply WEIGHT: numbers or a preset's name.",
        )


def _more(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdtrain-grid"]):
        item = ITEMS["dtype"]
        parts.form["dtype"] = gr.Dropdown(
            label=item.meta.label, info=item.meta.help, choices=[AS_A, *DTYPES], value=AS_A, elem_id=_id("dtype")
        )
        for name in MORE:
            _declared(parts, name)


def _pictures(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdtrain-row"]):
        parts.more["pictures_prompts"] = gr.Textbox(
            label="Prompts", lines=2, max_lines=6, elem_id=_id("pictures_prompts"), scale=3,
            placeholder="one a line, each with a seed of its own", info="Every model draws the same ones.",
        )
        parts.more["pictures_negative"] = gr.Textbox(
            label="Negative prompt", lines=2, elem_id=_id("pictures_negative"), scale=2, info="For all of them."
        )
    with gr.Row(elem_classes=["sdtrain-row"]):
        for name, label, value, info in (
            ("seed", "Seed", 1, "Of the first prompt."), ("steps", "Steps", 20, "Sampling steps."),
            ("size", "Size (pixels)", 0, "0: the model's own."),
            ("clip_skip", "Clip skip", 1, "2 for most anime models."),
        ):
            parts.more[f"pictures_{name}"] = gr.Number(
                label=label, value=value, precision=0, elem_id=_id(f"pictures_{name}"), info=info, min_width=110
            )
        parts.more["draw"] = _act("draw", "Draw", min_width=110)
    parts.more["pictures_message"] = gr.HTML("", elem_id=_id("pictures_message"))
    gr.HTML(PICTURES_HTML)


def _history(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdtrain-row"]):
        parts.more["again"] = gr.Dropdown(
            label="Merge", choices=[], allow_custom_value=True, elem_id=_id("again"), scale=3,
            info="One of this machine's, or any merged file that carries its recipe.",
        )
        parts.more["load_again"] = _act("load_again", "Fill the form with it", min_width=160)
    parts.more["again_message"] = gr.HTML("", elem_id=_id("again_message"))
    parts.more["report"] = gr.HTML("", elem_id=_id("report"))


def _live(parts: MergeParts) -> None:
    with gr.Row(elem_classes=["sdm-live"]):
        parts.more["live"] = gr.Checkbox(
            label="Live: the loaded model follows the sliders", value=False, elem_id=_id("live"), container=False,
            scale=0, min_width=330,
        )
        gr.HTML(LIVE_HTML)
        parts.more["live_fill"] = _act("live_fill", "Go on with it", min_width=120, scale=0)
        parts.more["live_save"] = _act("live_save", "Save it as a file", min_width=130, scale=0)
        parts.more["live_revert"] = _button("live_revert", "Revert", min_width=90, scale=0)


def _footer(parts: MergeParts, hosted: bool, live: bool) -> None:
    parts.more["load"] = gr.Button("load", visible=False, elem_id=_id("load"))
    parts.more["ended"] = gr.Button("ended", visible=False, elem_id=_id("ended"))
    parts.more["weighed"] = gr.Button("weighed", visible=False, elem_id=_id("weighed"))
    parts.more["job"] = gr.Textbox(visible=False, elem_id=_id("job"))
    parts.more["fill"] = gr.Button("fill", visible=False, elem_id=_id("fill"))
    parts.more["source"] = gr.Textbox(visible=False, elem_id=_id("source"))
    with gr.Column(elem_id=_id("foot"), elem_classes=["sdm-foot"]):
        gr.HTML(RUN_HTML)
        with gr.Row(elem_classes=["sdtrain-row", "sdm-stop"]):
            parts.more["stop"] = _button("stop", "Stop", variant="stop")
        with gr.Row(elem_classes=["sdtrain-row", "sdm-after"]):
            if hosted:
                _button("use", "Use it in the WebUI", variant="primary")
            parts.more["as_a"] = _act("as_a", "Merge on from it")
            parts.more["draw_result"] = _act("draw_result", "Draw A, B and it")
            _button("close", "Close")
        if live:
            _live(parts)
        with gr.Row(elem_id=_id("go"), elem_classes=["sdm-go"]):
            parts.more["plan"] = gr.HTML("", elem_id=_id("plan"))
            parts.form["name"] = gr.Textbox(
                label="Name of the result", elem_id=_id("name"), placeholder="made from the models", scale=0,
                min_width=240, max_lines=1,
            )
            parts.more["start"] = _act("start", "Merge", variant="primary", size="lg", scale=0, min_width=150)
            parts.more["enqueue"] = _act("enqueue", "Add to queue", scale=0, min_width=120)
