"""Draw pictures as the WebUI draws them: from API bodies, from infotexts, or from flags."""
from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.flags import flag_help
from lib_sdtrain.cli.run import drive
from lib_sdtrain.cli.terminal import duration
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import Event, Notice
from lib_sdtrain.settings.fields import Declared, declared
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.sample import SampleRequest, SampleSettings

FLAG_NAMES = {
    "sampler_name": "--sampler", "hr_second_pass_steps": "--hr-steps", "enable_hr": "--hires",
    "randn_source": "--rng", "hr_sampler_name": "--hr-sampler",
}
"""Flags that are not called as their setting."""
_NOT_FLAGS = ("width", "height")
_OF_THE_COMMAND = "requests"
_HIRES = ("hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y", "denoising_strength")


def _flag(item: Declared) -> str:
    return FLAG_NAMES.get(item.path, "--" + item.path.removeprefix("options.").replace("_", "-"))


def _taken(parser: argparse.ArgumentParser, flag: str) -> bool:
    return any(flag in action.option_strings for action in parser._actions)


def _add(target: Any, item: Declared, flag: str, dest: str) -> None:
    options: dict[str, Any] = {"dest": dest, "default": argparse.SUPPRESS, "help": flag_help(item)}
    if item.type is bool:
        target.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
    else:
        target.add_argument(flag, metavar=item.name.upper(), **options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `sample`: the command's own, then those of one request."""
    for item in declared(SampleSettings):
        if item.path != _OF_THE_COMMAND:
            _add(parser, item, "--" + item.path.replace("_", "-"), f"command.{item.path}")
    parser.add_argument("--request", metavar="FILE", help="bodies of /sdapi/v1/txt2img: JSON, or one a line")
    parser.add_argument("--infotext", metavar="FILE", help="infotexts separated by lines of =====")
    one = parser.add_argument_group("one request from flags (option names as the WebUI's settings)")
    one.add_argument("--size", metavar="WxH", help="width and height in pixels; default: 512x512")
    for item in declared(SampleRequest):
        if item.path not in _NOT_FLAGS and not _taken(parser, _flag(item)):
            _add(one, item, _flag(item), f"request.{item.path}")


def _given(args: argparse.Namespace, head: str) -> dict[str, Any]:
    return {name.removeprefix(head): value for name, value in vars(args).items() if name.startswith(head)}


def _size(text: str) -> dict[str, str]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.strip().isdigit() and height.strip().isdigit()):
        raise UserError(f"{text!r} is not a size", where="--size", fix="for instance --size 512x768")
    return {"width": width, "height": height}


def _read(path: str, flag: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})", where=flag, fix="check the path") from error


def requests_of(args: argparse.Namespace) -> list[SampleRequest]:
    """The requests that the flags mean. Raises `UserError`."""
    from lib_sdtrain.sample.requests import from_api, read_infotexts, read_requests, to_api

    flags = _given(args, "request.")
    if args.size:
        flags |= _size(args.size)
    if args.request or args.infotext:
        if flags or (args.request and args.infotext):
            raise UserError("give a request, an infotext or a prompt, one of them", where="--request, --infotext")
        if args.request:
            return read_requests(_read(args.request, "--request"), args.request)
        return read_infotexts(_read(args.infotext, "--infotext"), args.infotext)
    if "prompt" not in flags:
        raise UserError("a prompt is needed", where="--prompt", fix="or give --request or --infotext")
    if any(name in flags for name in _HIRES):
        flags.setdefault("enable_hr", True)
    return [from_api(to_api(build(SampleRequest, flags)))]


def run(args: argparse.Namespace) -> int:
    """Draw everything that was asked for."""
    from lib_sdtrain.sample import sample

    problems, settings, requests = Problems(), None, ()
    try:
        settings = build(SampleSettings, _given(args, "command."))
    except UserError as error:
        problems.absorb(error)
    try:
        requests = tuple(requests_of(args))
    except UserError as error:
        problems.absorb(error)
    problems.raise_if_any()
    wanted = SampleSettings(**{**vars(settings), "requests": requests})
    return drive(lambda token: chain(_notices(args, wanted), sample(wanted, token)), args.json, _summary)


def _notices(args: argparse.Namespace, settings: SampleSettings) -> list[Event]:
    """What the infotexts ask for and cannot have, and the VAE that they name where none is given."""
    if not args.infotext:
        return []
    from lib_sdtrain.sample.requests import infotext_notes

    vae = "" if settings.vae else "name its file with --vae to use it"
    notes = infotext_notes(_read(args.infotext, "--infotext"), args.infotext, vae)
    return [Notice(text=note, where=place) for note, place in notes]


def _summary(document: dict[str, Any]) -> str:
    lines = [f"{image['file']}  seed {image['seed']}" for image in document["images"]]
    return "\n".join([*lines, f"in {duration(document['seconds'])}"])
