"""The Sample sub-tab's components, in the order a person needs them. What they do is in `tab.py`."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from lib_sdtrain.api.sampling_form import OTHER, form_items
from lib_sdtrain.api.sampling_grid import NOTHING, axis_titles
from lib_sdtrain.sample.samplers.registry import SAMPLERS
from lib_sdtrain.sample.schedule_names import SCHEDULE_NAMES
from lib_sdtrain.settings.fields import Declared
from lib_sdtrain.ui.asking import ACTS
from lib_sdtrain.ui.controls import make_control, shown
from lib_sdtrain.ui.sample.views import RESULT_HTML

PANEL = "sdtrain_sample"
UPSCALERS = (
    "Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)", "Latent (nearest)",
    "Latent (nearest-exact)", "None", "Lanczos", "Nearest",
)
AS_FIRST = "as the first"
BASIC = ("sampler_name", "scheduler", "steps", "cfg_scale", "seed", "width", "height", "clip_skip", "enable_hr")
HIRES = (
    "hr_scale", "hr_upscaler", "denoising_strength", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y",
    "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt",
)
_KNOWN = ("sampler_name", "scheduler", "steps", "cfg_scale", "seed", "width", "height", "clip_skip")
_NOT_SHOWN = ("prompt", "negative_prompt", "firstphase_width", "firstphase_height", *BASIC, *HIRES)


@dataclass
class SampleParts:
    """The components that handlers read and write: `form` by name of the service's form, `more` for all others."""

    form: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def _id(name: str) -> str:
    return f"{PANEL}_{name}"


def build_sample(values: dict[str, Any]) -> SampleParts:
    """Render the sub-tab where Gradio stands; `values` are what the form holds at first."""
    parts = SampleParts()
    with gr.Column(elem_id=PANEL, elem_classes=["sdtrain-page"]), gr.Row(elem_classes=["sds-sides"]):
        with gr.Column(scale=6, min_width=380, elem_classes=["sds-form"]):
            _infotext(parts)
            _what(parts, values)
            _controls(parts, BASIC, values)
            with gr.Group(visible=bool(values["enable_hr"]), elem_id=_id("hires")) as parts.more["hires"]:
                _controls(parts, HIRES, values)
            _extra(parts, values)
            _start(parts)
        with gr.Column(scale=5, min_width=340, elem_classes=["sds-result"]):
            gr.HTML(RESULT_HTML)
    return parts


def _infotext(parts: SampleParts) -> None:
    with gr.Row(elem_classes=["sdtrain-row", "sds-infotext"]):
        parts.more["infotext"] = gr.Textbox(
            label="Infotext", lines=3, max_lines=6, elem_id=_id("infotext"), scale=3, min_width=260,
            placeholder="Paste what stands under a picture of the WebUI; it fills the boxes below.",
        )
        parts.more["picture"] = gr.File(
            label="or drop a PNG", file_types=[".png"], elem_id=_id("picture"), scale=1, min_width=190,
        )
    parts.more["read"] = gr.Button("Read the infotext", elem_id=_id("read"), size="sm", visible=False)
    parts.more["message"] = gr.HTML("", elem_id=_id("message"))


def _what(parts: SampleParts, values: dict[str, Any]) -> None:
    for name, lines in (("prompt", 3), ("negative_prompt", 2)):
        item = form_items()[name]
        parts.form[name] = gr.Textbox(
            label=item.meta.label, value=values[name], lines=lines, max_lines=12, elem_id=_id(name),
            elem_classes=["sdtrain-field"],
        )
    with gr.Row(elem_classes=["sdtrain-row"]):
        parts.form["checkpoint"] = gr.Dropdown(
            label="Checkpoint", choices=[], elem_id=_id("checkpoint"), scale=3, min_width=240,
        )
        parts.more["refresh"] = gr.Button(
            "Look again", elem_id=_id("refresh"), size="sm", scale=0, min_width=100,
        )


def _controls(parts: SampleParts, names: Iterable[str], values: dict[str, Any]) -> None:
    with gr.Row(elem_classes=["sdtrain-grid", "sds-grid"]):
        for name in names:
            item = _plainer(form_items()[name])
            value = shown(item, values[name])
            choices = _choices(name)
            if choices and choices[0] == AS_FIRST:
                value = value or AS_FIRST
            parts.form[name] = make_control(name, item, value, choices, PANEL).component


def _plainer(item: Declared) -> Declared:
    """Whole numbers are typed, not slid; what every user of the WebUI knows needs no words."""
    meta = replace(item.meta, maximum=None) if item.name in ("steps", "clip_skip") else item.meta
    return replace(item, meta=replace(meta, help="") if item.name in _KNOWN else meta)


def _choices(name: str) -> list[str] | None:
    samplers, schedules = [sampler.name for sampler in SAMPLERS], [schedule.label for schedule in SCHEDULE_NAMES]
    lists = {
        "sampler_name": samplers, "scheduler": schedules, "hr_sampler_name": [AS_FIRST, *samplers],
        "hr_scheduler": [AS_FIRST, *schedules], "hr_upscaler": list(UPSCALERS),
    }
    return lists.get(name)


def _extra(parts: SampleParts, values: dict[str, Any]) -> None:
    with gr.Accordion("Compare with a second checkpoint", open=False, elem_id=_id("comparing")):
        parts.form["compare"] = gr.Dropdown(
            label="Second checkpoint", choices=[], elem_id=_id("compare"), elem_classes=["sdtrain-field"],
            info="The same request with the same seed, side by side. Nothing chosen: no comparison.",
        )
    with gr.Accordion("Grid", open=False, elem_id=_id("grid")):
        titles = list(axis_titles())
        for name in ("x", "y"):
            with gr.Row(elem_classes=["sdtrain-row"]):
                parts.form[name] = gr.Dropdown(
                    label=f"{name.upper()} axis", choices=titles, value=NOTHING, elem_id=_id(name), min_width=150,
                    scale=1, elem_classes=["sdtrain-field"],
                )
                parts.form[f"{name}_values"] = gr.Textbox(
                    label="Values", elem_id=_id(f"{name}_values"), scale=3, min_width=200, visible=False,
                    placeholder="between commas, or a range: 10-30 (+5)", elem_classes=["sdtrain-field"],
                )
    with gr.Accordion("More settings", open=False, elem_id=_id("more")):
        _controls(parts, [name for name in form_items() if name not in _NOT_SHOWN], values)
        parts.form[OTHER] = gr.Textbox(
            label="Other settings of the WebUI", lines=2, max_lines=8, value=values[OTHER], elem_id=_id(OTHER),
            info="One a line, by the WebUI's names.", placeholder="eta_ddim: 0.5", elem_classes=["sdtrain-field"],
        )


def _start(parts: SampleParts) -> None:
    with gr.Row(elem_classes=["sdtrain-footer"]):
        parts.more["plan"] = gr.HTML("", elem_id=_id("plan"))
        parts.more["start"] = gr.Button(
            "Generate", variant="primary", elem_id=_id("start"), elem_classes=[ACTS], min_width=130, scale=0
        )
        parts.more["stop"] = gr.Button("Stop", variant="stop", elem_id=_id("stop"), min_width=100, scale=0)
    for name in ("load", "changed"):  # pressed by the page's script
        parts.more[name] = gr.Button(name, visible=False, elem_id=_id(name))
    parts.more["job"] = gr.Textbox("", visible=False, elem_id=_id("job"))
