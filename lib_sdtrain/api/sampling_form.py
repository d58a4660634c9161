"""The Sample form in plain data: what its boxes mean, and what an infotext or a picture puts into them."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.fields import BASIC, Declared, declared
from lib_sdtrain.settings.parse import assemble, nearest, parse_value
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest

OTHER = "other"
_OF_THE_PAGE = "sd_model_checkpoint"  # the page has a list of checkpoints instead


@dataclass(frozen=True)
class Reading:
    """What an infotext says: values by name of the form's boxes, its model, and what cannot be honoured."""

    values: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    model_hash: str = ""
    embeddings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@cache
def form_items() -> dict[str, Declared]:
    """Every setting of a request that has a box of its own, by name."""
    return {item.path: item for item in declared(SampleRequest) if "." not in item.path}


@cache
def basic_names() -> tuple[str, ...]:
    """Names of the boxes that are always in sight."""
    return tuple(name for name, item in form_items().items() if item.meta.level == BASIC)


@cache
def _options() -> dict[str, Declared]:
    return {item.path: item for item in declared(SampleOptions) if item.path != _OF_THE_PAGE}


def read_other(text: str) -> dict[str, Any]:
    """Settings of the WebUI, `name: value` one a line, by path of a request. Raises `UserError` for each mistake."""
    problems, found = Problems(), {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, written = (part.strip() for part in line.partition(":"))
        item = _options().get(name)
        if item is None:
            problems.add(f"no setting is called {name!r}", where=OTHER, fix=nearest(name, sorted(_options())))
            continue
        try:
            found[f"options.{name}"] = parse_value(item, written)
        except ValueError as error:
            problems.add(f"{name}: {error}", where=OTHER)
    problems.raise_if_any()
    return found


def write_other(options: SampleOptions) -> str:
    """The options that are not the defaults, as `read_other` reads them."""
    values = {name: getattr(options, name) for name in _options()}
    changed = {name: value for name, value in values.items() if value != _options()[name].default}
    return "\n".join(
        f"{name}: {str(value).lower() if isinstance(value, bool) else value}" for name, value in changed.items()
    )


def request_of(form: Mapping[str, Any]) -> SampleRequest:
    """The request that a form asks for. Raises `UserError` with every mistake, at the box where it is."""
    problems, values = Problems(), {}
    for name, item in form_items().items():
        if name in form:
            try:
                values[name] = parse_value(item, form[name])
            except ValueError as error:
                problems.add(str(error), where=name)
    try:
        values |= read_other(str(form.get(OTHER) or ""))
    except UserError as error:
        problems.absorb(error)
    problems.raise_if_any()
    return assemble(SampleRequest, values)


def form_of(request: SampleRequest) -> dict[str, Any]:
    """Values of the boxes that ask for `request`."""
    return {name: getattr(request, name) for name in form_items()} | {OTHER: write_other(request.options)}


def read_form(text: str) -> Reading:
    """What an infotext puts into the form. Raises `UserError` for values that cannot be."""
    from lib_sdtrain.sample.honoured import not_honoured
    from lib_sdtrain.sample.infotext import parse_infotext

    request, facts = parse_infotext(text)
    embeddings = tuple(entry.partition(":")[0].strip() for entry in facts.ti_hashes.split(",") if entry.strip())
    notes = not_honoured(facts, f"name it below as “sd_vae: {facts.vae}” to use it")
    return Reading(form_of(request), facts.model, facts.model_hash, embeddings, notes)


def infotext_of(picture: Path) -> str:
    """The infotext in a picture's file. Raises `UserError` when it has none or is no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(picture) as image:
            text = image.info.get("parameters")
    except (OSError, UnidentifiedImageError) as error:
        raise UserError("this file is not a picture", where="picture", fix="drop a PNG that the WebUI saved") from error
    if not text:
        raise UserError("this picture holds no infotext", where="picture", fix="drop a PNG that the WebUI saved")
    return str(text)
