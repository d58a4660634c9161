"""Which pictures are drawn while training: prompts, infotexts and API requests become sample requests."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.model.family import Family
from lib_sdtrain.sample.check import check_request
from lib_sdtrain.sample.infotext import parse_infotext
from lib_sdtrain.sample.requests import from_api
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_outputs import WEBUI
from lib_sdtrain.settings.sample import OPTION_FIELDS, SampleRequest

_SEED = re.compile(r"[\n,] ?Seed: \d")
PLAIN = {"steps": 20, "sampler_name": "Euler a", "cfg_scale": 7.0, "randn_source": "CPU"}


def preview_requests(settings: RunSettings, target: tuple[int, int]) -> list[SampleRequest]:
    """One request an entry of preview.prompts. Raises `UserError` with every entry that cannot be read.

    What an entry does not say is the run's: size, clip skip, and a seed of its own, the same at every step.
    """
    problems, requests = Problems(), []
    for index, entry in enumerate(settings.preview.prompts):
        try:
            requests.append(_request(entry, _own(settings, target, index), f"preview.prompts.{index}"))
        except UserError as error:
            problems.absorb(error)
    problems.raise_if_any()
    return requests


def _own(settings: RunSettings, target: tuple[int, int], index: int) -> dict[str, Any]:
    """What entry number `index` is drawn with as far as it says nothing else."""
    return {**PLAIN, "width": target[0], "height": target[1], "clip_skip": settings.model.clip_skip,
            "seed": settings.seed_of(settings.preview) % 2**32 + index}


def preview_bodies(settings: RunSettings, target: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """The entries that the WebUI itself draws, as bodies of its txt2img by the setting that they come from.

    What they say is left to the WebUI, which knows samplers, scripts and labels of infotexts that we do not.
    """
    entries = settings.preview.prompts if settings.preview.drawn_by == WEBUI else ()
    return {f"preview.prompts.{index}": _body(entry, _own(settings, target, index))
            for index, entry in enumerate(entries)}  # fmt: skip


def _body(entry: Any, own: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        text = str(entry).strip()
        entry = {"infotext": text} if "\nSteps: " in text else {"prompt": text}
    if entry.get("infotext"):  # what a body says besides would win over it
        return {**({} if _SEED.search(entry["infotext"]) else {"seed": own["seed"]}), **entry}
    settings = {name: own[field] for name, field in OPTION_FIELDS.items() if field in own}
    elsewhere = {*OPTION_FIELDS.values(), *(["sampler_name"] if "sampler_index" in entry else [])}
    plain = {name: value for name, value in own.items() if name not in elsewhere}
    return {**plain, **entry, "override_settings": {**settings, **(entry.get("override_settings") or {})}}


def _request(entry: Any, own: dict[str, Any], where: str) -> SampleRequest:
    if isinstance(entry, Mapping):
        return _completed(from_api(entry, where), own, _named(entry))
    text = str(entry).strip()
    if "\nSteps: " not in text:
        return build(SampleRequest, {**own, "prompt": text}, where)
    request, _ = parse_infotext(text)
    return _completed(request, own, set(own) - ({"seed"} if request.seed == -1 else set()))


def _named(body: Mapping[str, Any]) -> set[str]:
    """The request's fields that an API body says something about."""
    settings = body.get("override_settings") or {}
    return {*body, *(OPTION_FIELDS[name] for name in settings if name in OPTION_FIELDS)}


def _completed(request: SampleRequest, own: dict[str, Any], named: set[str]) -> SampleRequest:
    return replace(request, **{name: value for name, value in own.items() if name not in named})


def check_previews(settings: RunSettings, target: tuple[int, int], family: Family | None, problems: Problems) -> None:
    """Add what is wrong with the previews that we draw to `problems`."""
    if settings.preview.drawn_by == WEBUI:
        return
    try:
        for request in preview_requests(settings, target):
            if family:
                check_request(request, family)
    except UserError as error:
        problems.absorb(error)
