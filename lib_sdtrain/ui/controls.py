"""A control for every declared setting: which component, what it shows, and what a shown value means."""
from __future__ import annotations

import json
import typing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_sdtrain.settings.fields import Declared
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.parse import WHOLE_ENTRIES
from lib_sdtrain.textfiles import parse_json

PANEL = "sdtrain_train"
REQUEST_SEPARATOR = "====="
MAX_RADIO_CHOICES = 3
MAX_SLIDER_RANGE = 1000


@dataclass(frozen=True)
class Control:
    """A component that stands for the setting at `path` (concepts have a number in theirs)."""

    path: str
    item: Declared
    component: Any


def element_id(path: str, panel: str = PANEL) -> str:
    """`sdtrain_<panel>_<setting path with underscores>`."""
    return f"{panel}_{path.replace('.', '_')}"


def shown(item: Declared, value: Any) -> Any:
    """What the control holds for a settings value."""
    if item.type is bool:
        return bool(value)
    if value is None:
        return ""
    if isinstance(value, (Length, str)):
        return str(value)
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    if isinstance(value, (list, tuple)):
        return _shown_list(item, value)
    return value if _numeric(item) else number_text(value) if isinstance(value, float) else str(value)


def number_text(value: float) -> str:
    """A number as people write it, `1e-6`, with as many places as it takes to read the same back."""
    short = f"{value:g}"
    head, exponent, power = (short if float(short) == value else repr(value)).partition("e")
    return f"{head}e{int(power)}" if exponent else head


def _shown_list(item: Declared, values: Any) -> str:
    if item.meta.kind not in WHOLE_ENTRIES:
        return ", ".join(map(str, values))
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    if all("\n" not in text for text in texts):
        return "\n".join(texts)
    shown = f"\n{REQUEST_SEPARATOR}\n".join(texts)
    return shown if split_requests(shown) == list(values) else f"{shown}\n{REQUEST_SEPARATOR}"


def raw(item: Declared, value: Any) -> Any:
    """The raw settings value of what a control holds; wrong text is left for the settings to judge."""
    if item.type is bool or not isinstance(value, str):
        return value
    text = value.strip()
    if item.meta.kind == "requests":
        return split_requests(text)
    if item.meta.kind == "overrides":
        return [_json_or_text(line.strip()) for line in text.splitlines() if line.strip()]
    if typing.get_origin(item.type) is dict:
        return _json_or_text(text) if text else {}
    if not text and item.optional:
        return None
    return text


def split_requests(text: str) -> list[Any]:
    """One prompt a line, or infotexts and JSON requests between lines of `=====`."""
    if not text:
        return []
    lines = text.splitlines()
    whole = any(set(line.strip()) == {"="} and len(line.strip()) >= len(REQUEST_SEPARATOR) for line in lines)
    if not whole and "\nSteps: " not in text:
        return [_json_or_text(line.strip()) for line in lines if line.strip()]
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip().startswith(REQUEST_SEPARATOR) and set(line.strip()) == {"="}:
            blocks.append([])
        else:
            blocks[-1].append(line)
    return [_json_or_text("\n".join(block).strip()) for block in blocks if "".join(block).strip()]


def _json_or_text(text: str) -> Any:
    if not text.startswith("{"):
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text


def _numeric(item: Declared) -> bool:
    return _slides(item) or (item.type is int and not item.optional)


def _slides(item: Declared) -> bool:
    low, high = item.meta.minimum, item.meta.maximum
    numeric = item.type in (int, float) and not item.optional
    return numeric and low is not None and high is not None and high - low <= MAX_SLIDER_RANGE


def label_of(item: Declared) -> str:
    """The label with its unit, unless it names it itself."""
    label, unit = item.meta.label, item.meta.unit
    return f"{label} ({unit})" if unit and unit.lower() not in label.lower() else label


def make_control(
    path: str, item: Declared, value: Any, choices: list[str] | None = None, panel: str = PANEL,
    hidden: bool = False,
) -> Control:
    """The component of a setting, rendered where Gradio stands, holding `value` (as made by `shown`).

    `choices` replaces the declared ones; `panel` begins the element's id; a `hidden` control keeps its value.
    """
    visible = not hidden and (choices is not None or len(item.meta.choices) != 1)
    common = {
        "label": label_of(item), "info": item.meta.help, "value": value, "elem_id": element_id(path, panel),
        "elem_classes": ["sdtrain-field"], "visible": visible,
    }
    return Control(path, item, _component(item, common, choices))


def _component(item: Declared, common: dict[str, Any], choices: list[str] | None) -> Any:
    if item.type is bool:
        return gr.Checkbox(**common)
    if choices is not None:
        return gr.Dropdown(choices=choices, allow_custom_value=True, **common)
    if item.meta.choices:
        few = len(item.meta.choices) <= MAX_RADIO_CHOICES
        return gr.Radio(choices=list(item.meta.choices), **common) if few else gr.Dropdown(
            choices=list(item.meta.choices), allow_custom_value=item.meta.open_choices, **common
        )
    if _slides(item):
        step = item.meta.step or 0.01
        return gr.Slider(minimum=item.meta.minimum, maximum=item.meta.maximum, step=step, **common)
    if _numeric(item):
        return gr.Number(precision=0, **common)
    lines = 3 if item.meta.kind in WHOLE_ENTRIES else 1
    return gr.Textbox(lines=lines, max_lines=max(lines, 8), placeholder=placeholder(item), **common)


def placeholder(item: Declared) -> str:
    """What an empty box means."""
    if item.meta.default_text:
        return item.meta.default_text
    if item.meta.kind == "requests":
        return "one prompt a line"
    if item.meta.kind == "overrides":
        return f"one a line: {item.meta.example}"
    return "off" if item.optional else ""
