"""Bodies of the WebUI's /sdapi/v1/txt2img as requests, and back."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.sample.honoured import not_honoured
from lib_sdtrain.sample.infotext import parse_infotext, split_infotexts
from lib_sdtrain.sample.samplers.registry import split_name
from lib_sdtrain.sample.schedule_names import find_schedule
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.parse import build, nearest
from lib_sdtrain.settings.sample import OPTION_FIELDS, SampleOptions, SampleRequest
from lib_sdtrain.textfiles import parse_json

WITHOUT_EFFECT = frozenset({
    "sampler_index", "override_settings", "override_settings_restore_afterwards", "do_not_save_samples",
    "do_not_save_grid", "refiner_switch_at", "send_images", "save_images", "force_task_id", "comments", "infotext",
})
"""Fields of a body that are read elsewhere, or do not change a picture."""
EMPTY_ONLY = {
    "styles": "saved styles", "restore_faces": "face restoration", "refiner_checkpoint": "the refiner",
    "firstpass_image": "a given first picture", "script_name": "scripts",
    "script_args": "scripts", "alwayson_scripts": "scripts", "hr_checkpoint_name": "another checkpoint for hires",
}
"""Fields that are accepted as long as they ask for nothing."""
SETTINGS_WITHOUT_EFFECT = frozenset({
    "samples_save", "samples_format", "grid_save", "return_grid", "enable_pnginfo", "save_txt", "live_previews_enable",
    "show_progress_every_n_steps", "show_progress_type", "add_model_hash_to_info", "add_model_name_to_info",
    "do_not_show_images", "cross_attention_optimization", "sd_checkpoint_hash", "img2img_fix_steps",
    "persistent_cond_cache", "sd_checkpoint_cache", "upcast_attn", "refiner_switch_by_sample_steps",
    "hires_fix_refiner_pass",
})
SETTINGS_AS_THEY_ARE = {
    "token_merging_ratio": (0,), "token_merging_ratio_hr": (0,), "use_old_emphasis_implementation": (False,),
    "sd_vae_decode_method": ("Full",), "sd_vae_encode_method": ("Full",), "sd_unet": ("Automatic", "None"),
    "sd_lora": ("None",), "sd_hypernetwork": ("None",), "face_restoration": (False,), "fp8_storage": ("Disable",),
}
"""Settings of what cannot be had here, with the values at which they change nothing."""
_NOTHING = (None, "", [], {}, False, "None", "none", "Use same checkpoint")


def from_api(body: Mapping[str, Any], where: str = "") -> SampleRequest:
    """The request of one body; `override_settings` are honoured.

    Raises `UserError` with every unknown field and every wrong value.
    """
    problems = Problems()
    values = _from_infotext(body)
    known = {item.path for item in declared(SampleRequest) if "." not in item.path}
    for name, value in body.items():
        if name in EMPTY_ONLY:
            if value not in _NOTHING:
                problems.add(f"{EMPTY_ONLY[name]} cannot be had outside of the WebUI", where=_at(where, name))
        elif name in known - set(OPTION_FIELDS.values()):
            if value is not None:
                values[name] = value
        elif name not in WITHOUT_EFFECT:
            problems.add("unknown field", where=_at(where, name), fix=nearest(name, sorted(known)))
    values |= _overridden(body.get("override_settings") or {}, _at(where, "override_settings"), problems)
    _name_sampler(body, values)
    try:
        request = build(SampleRequest, values, where)
    except UserError as error:
        problems.absorb(error)
    problems.raise_if_any()
    return request


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _from_infotext(body: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the body's own `infotext`, which its other fields then win over."""
    text = body.get("infotext")
    if not text:
        return {}
    return _changed(parse_infotext(text)[0])


def _changed(request: SampleRequest) -> dict[str, Any]:
    """What differs from the defaults, as nested plain data."""
    found: dict[str, Any] = {}
    for item, default in ((request, SampleRequest()), (request.options, SampleOptions())):
        prefix = "options." if isinstance(item, SampleOptions) else ""
        for field in fields(item):
            value = getattr(item, field.name)
            if field.name != "options" and value != getattr(default, field.name):
                found[prefix + field.name] = value
    return found


def _overridden(settings: Mapping[str, Any], where: str, problems: Problems) -> dict[str, Any]:
    known = {field.name for field in fields(SampleOptions)}
    found = {}
    for name, value in settings.items():
        if name in OPTION_FIELDS:
            found[OPTION_FIELDS[name]] = value
        elif name in known:
            found[f"options.{name}"] = value
        elif name not in SETTINGS_WITHOUT_EFFECT and value not in SETTINGS_AS_THEY_ARE.get(name, ()):
            problems.add("unknown setting, or one that cannot be had outside of the WebUI", where=_at(where, name),
                         fix=nearest(name, sorted(known | OPTION_FIELDS.keys())))
    return found


def _name_sampler(body: Mapping[str, Any], values: dict[str, Any]) -> None:
    """Take a schedule type off the end of the sampler's name, where none is given besides.

    Unknown names are left for the check of the request.
    """
    name = body.get("sampler_name") or values.get("sampler_name") or body.get("sampler_index") or "Euler"
    given = values.get("scheduler")
    try:
        values["sampler_name"], ending = split_name(str(name), None)
        values["scheduler"] = find_schedule(given).label if given else ending
    except UserError:
        values["sampler_name"] = name


def to_api(request: SampleRequest) -> dict[str, Any]:
    """The body that asks for the same; only what differs from the defaults, lossless."""
    changed = _changed(request)
    settings = {own: changed.pop(name) for own, name in OPTION_FIELDS.items() if name in changed}
    settings |= {name.removeprefix("options."): changed.pop(name) for name in list(changed) if "." in name}
    body = {"prompt": request.prompt, **changed}
    return {**body, "override_settings": settings} if settings else body


def read_requests(text: str, where: str = "") -> list[SampleRequest]:
    """Requests of a file's text: one body, a list of bodies, or one a line. Raises `UserError`."""
    problems, found = Problems(), []
    for place, body in _bodies(text, where):
        if not isinstance(body, Mapping):
            problems.add("this is not a body of txt2img", where=place, fix="write a JSON object")
            continue
        try:
            found.append(from_api(body, place))
        except UserError as error:
            problems.absorb(error)
    problems.raise_if_any()
    if not found:
        raise UserError("there is no request in it", where=where)
    return found


def _bodies(text: str, where: str) -> Iterator[tuple[str, Any]]:
    try:
        whole = parse_json(text)
    except ValueError:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        for number, line in lines:
            yield f"{where}:{number}", _json(line, f"{where}:{number}")
        return
    bodies = whole if isinstance(whole, list) else [whole]
    for number, body in enumerate(bodies, 1):
        yield where if len(bodies) == 1 else f"{where}[{number}]", body


def _json(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=where) from error


def infotext_notes(text: str, where: str = "", vae: str = "") -> list[tuple[str, str]]:
    """(note, place) of each thing that the infotexts of a file ask for and that cannot be had here.

    `vae`: see `not_honoured`. Raises `UserError` for values that cannot be.
    """
    texts = split_infotexts(text)
    places = [where if len(texts) == 1 else f"{where}[{number}]" for number, _ in enumerate(texts, 1)]
    return [
        (note, place) for place, infotext in zip(places, texts, strict=True)
        for note in not_honoured(parse_infotext(infotext)[1], vae)
    ]


def read_infotexts(text: str, where: str = "") -> list[SampleRequest]:
    """Requests of a file of infotexts, separated by lines of `=====`; each one picture from its own seed."""
    problems, found = Problems(), []
    texts = split_infotexts(text)
    for number, infotext in enumerate(texts, 1):
        try:
            found.append(parse_infotext(infotext)[0])
        except UserError as error:
            problems.absorb(error, f"{where}[{number}] {{}}".format)
    problems.raise_if_any()
    if not found:
        raise UserError("there is no infotext in it", where=where)
    return found
