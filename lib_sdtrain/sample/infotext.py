"""Infotexts: the lines of text under a picture, read and written as AUTOMATIC1111 WebUI 1.10.1 does.

    prompt
    Negative prompt: ...
    Steps: 20, Sampler: Euler a, ..., Version: v1.10.1

Reading understands everything since 2022. What is written is the WebUI's own text for the same request; an
infotext cannot carry all of a request (s_churn given in the body of a request, ENSD for some samplers, comma
backtracking).
"""
from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.sample.infotext_fields import (
    FACT_LABELS,
    OPTION_ALIASES,
    OPTION_LABELS,
    ORDER,
    REQUEST_LABELS,
    SAME_AS_FIRST,
)
from lib_sdtrain.sample.samplers.registry import split_name
from lib_sdtrain.settings.fields import Declared, declared
from lib_sdtrain.settings.parse import parse_value
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.textfiles import parse_json

_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_NEGATIVE = "Negative prompt:"
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:-(?:(?P<candidate>RC\b)|(\d+)))?", re.IGNORECASE)


@dataclass(frozen=True)
class Facts:
    """What an infotext says beside the request: where the picture came from, and words it could not place."""

    model_hash: str = ""
    model: str = ""
    vae_hash: str = ""
    vae: str = ""
    lora_hashes: str = ""
    ti_hashes: str = ""
    version: str = ""
    inpainting: bool = False
    """The model is one for inpainting."""
    extras: tuple[tuple[str, str], ...] = field(default=())


def quote(value: str) -> str:
    """JSON quotes around a value that holds a comma, a colon or a new line."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value


def unquote(text: str) -> str:
    """The value of a quoted or a plain text."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return str(parse_json(text))
    except ValueError:
        return text


def split_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, labels and their values) of an infotext. Never fails."""
    *lines, last = text.strip().split("\n")
    found = _PARAMETER.findall(last)
    if len(found) < 3:
        lines, found = [*lines, last], []
    start = next((i for i, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip()[len(_NEGATIVE):]
    return "\n".join(lines[:start]), negative.removeprefix(" "), {label: unquote(value) for label, value in found}


def _declared(prefix: str = "") -> dict[str, Declared]:
    return {item.path.removeprefix(prefix): item for item in declared(SampleRequest) if item.path.startswith(prefix)}


def _value(item: Declared, text: str, label: str) -> Any:
    try:
        if item.type is float and re.fullmatch(r"[+-]?\d+", text.strip()):
            return int(text)  # "CFG scale: 7" is written back as it was
        return parse_value(item, text)
    except ValueError as error:
        raise UserError(str(error), where=f"infotext, {label}") from error


def _sizes(labels: dict[str, str]) -> dict[str, Any]:
    """Fields that stand as WxH, the old forms of hires fix among them."""
    def size(label: str) -> tuple[int, int] | None:
        match = _SIZE.fullmatch(labels.get(label, ""))
        return (int(match[1]), int(match[2])) if match else None

    values: dict[str, Any] = {}
    width, height = size("Size") or (512, 512)
    first = size("First pass size")
    if first is not None:
        values.update(hr_resize_x=width, hr_resize_y=height)
        width, height = first if all(first) else old_first_pass(width, height)
    elif size("Hires resize"):
        values["hr_resize_x"], values["hr_resize_y"] = size("Hires resize")
    if size("Seed resize from"):
        values["seed_resize_from_w"], values["seed_resize_from_h"] = size("Seed resize from")
    return {**values, "width": width, "height": height}


def old_first_pass(width: int, height: int) -> tuple[int, int]:
    """The first pass that WebUI of 2022 chose for a final size: 512² pixels, rounded up to multiples of 64."""
    scale = math.sqrt(512 * 512 / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def parse_infotext(text: str) -> tuple[SampleRequest, Facts]:
    """The request that an infotext describes, for one picture, and the facts around it.

    Raises `UserError` for values that cannot be (a word for a number, an unknown sampler).
    """
    prompt, negative, labels = split_infotext(text)
    values: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative, **_sizes(labels)}
    fields, options, extras = _declared(), {}, []
    own_options = _declared("options.")
    for label, written in labels.items():
        if label in REQUEST_LABELS and written not in SAME_AS_FIRST:
            values[REQUEST_LABELS[label]] = _value(fields[REQUEST_LABELS[label]], written, label)
        elif label in OPTION_LABELS or label in OPTION_ALIASES:
            name = OPTION_LABELS.get(label) or OPTION_ALIASES[label]
            options[name] = _value(own_options[name], written, label)
        elif label not in FACT_LABELS and label not in _SIZE_LABELS and label not in REQUEST_LABELS:
            extras.append((label, written))
    facts = Facts(**{FACT_LABELS[label]: labels[label] for label in FACT_LABELS if label in labels},
                  inpainting="Conditional mask weight" in labels, extras=tuple(extras))
    values["enable_hr"] = "Denoising strength" in labels
    sampler = values.get("sampler_name", "Euler")
    values["sampler_name"], values["scheduler"] = split_name(sampler, values.get("scheduler"))
    values.update(_second_sampler(values, labels))
    request = SampleRequest(**values)
    return replace(request, options=replace(request.options, **options, **_of_its_time(labels, prompt))), facts


def _second_sampler(values: dict[str, Any], labels: dict[str, str]) -> dict[str, str]:
    """Sampler and schedule type of the hires pass where they are others; names may end in a schedule type here too.

    Without one of its own the second pass has what stands at `Schedule type`, and not what ends the first one's name.
    """
    if not {"hr_sampler_name", "hr_scheduler"} & values.keys():
        return {}
    name = values.get("hr_sampler_name", labels.get("Sampler", "Euler"))
    sampler, scheduler = split_name(name, values.get("hr_scheduler") or labels.get("Schedule type"))
    found = {"hr_sampler_name": sampler} if "hr_sampler_name" in values else {}
    return found | ({"hr_scheduler": scheduler} if scheduler != values["scheduler"] or "hr_scheduler" in values else {})


_SIZE_LABELS = ("Size", "First pass size", "Hires resize", "Seed resize from", "Batch size", "Batch pos")


def _version(text: str) -> tuple[int, ...] | None:
    match = _VERSION.match(text)
    if match is None:
        return None
    numbers = tuple(int(match[group] or 0) for group in (1, 2, 3, 5))
    return (*numbers[:3], -1) if match["candidate"] else numbers  # a release candidate comes before its release


def _of_its_time(labels: dict[str, str], prompt: str) -> dict[str, bool]:
    """Options that bring back how the WebUI of the infotext's version drew; none where it names no version."""
    version = _version(labels.get("Version", ""))
    found: dict[str, bool] = {}
    if version is None:
        return found
    if version < (1, 6, 0, 0):
        if "[" in prompt:
            found["use_old_scheduling"] = True
        if labels.get("Sampler") in ("DDIM", "PLMS"):
            found["pad_cond_uncond_v0"] = True
    if version < (1, 7, 0, 225):
        found["use_downcasted_alpha_bar"] = True
    return {name: value for name, value in found.items() if OPTION_OF[name] not in labels}


OPTION_OF = {name: label for label, name in OPTION_LABELS.items()}


def split_infotexts(text: str) -> list[str]:
    """The infotexts of a file, separated by lines of `=====`."""
    parts = re.split(r"^={5,}[ \t]*$", text, flags=re.MULTILINE)
    return [part.strip() for part in parts if part.strip()]


def join(prompt: str, negative: str, parameters: dict[str, Any]) -> str:
    """The text of an infotext; parameters that are None are left out."""
    written = [f"{label}: {quote(str(value))}" for label, value in parameters.items() if value is not None]
    negative = f"\n{_NEGATIVE} {negative}" if negative else ""
    return f"{prompt}{negative}\n{', '.join(written)}".strip()


def ordered(parameters: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """`parameters` with the facts, in the order of the WebUI."""
    known = {label: getattr(facts, name) or None for label, name in FACT_LABELS.items()} | parameters
    version = known.pop("Version")
    placed = {label: known.get(label) for label in ORDER}
    rest = {label: value for label, value in known.items() if label not in placed}
    return {**placed, **rest, **dict(facts.extras), "Version": version}

