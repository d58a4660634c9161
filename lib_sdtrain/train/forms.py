"""The forms in which a run writes its model at each save: the main one, and those that `save.also` lists."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib_sdtrain.errors import Problem, Problems
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.parse import nearest, parse_value
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import FULL
from lib_sdtrain.settings.run_outputs import DROP, KEEP, USE, SaveSettings

ALSO, SUFFIX = "save.also", "suffix"
OWN = ("dtype", "vae", "text_encoder", "ema")
"""What a form may say of its own; all else is as with the main one."""
NO_AVERAGE, NO_UNET = "there is no average to keep", "only the average of a whole UNet can be kept beside it"
_ALLOWED = re.compile(r"[A-Za-z0-9_.-]{0,31}[A-Za-z0-9_-]")
_TAKEN = re.compile(r"-stage-\d.*|.*-\d{6}")
"""What stands behind a run's name already: the number of a stage or a step."""


@dataclass(frozen=True)
class Form:
    """What stands behind the run's name in the file's, and the settings by which the file is written.

    `dtype_at` is the setting that says its number format.
    """

    suffix: str
    settings: RunSettings
    dtype_at: str = "save.dtype"


def forms_of(settings: RunSettings) -> list[Form]:
    """The forms of a whole model, the main one last, but for those with a mistake, which `check_forms` tells."""
    further = _further(settings, Problems()) if settings.method.kind == FULL else []
    return [*further, Form("", settings)]


def average_beside(settings: RunSettings) -> str:
    """Which average the files hold beside the main form's weights: all of it (use), the UNet's (keep), or none (empty).

    Where the main form is the average itself there is none beside it.
    """
    said = {form.settings.save.ema for form in forms_of(settings)}
    if settings.ema.decay is None or settings.save.ema == USE:
        return ""
    return USE if USE in said else KEEP if KEEP in said else ""


def check_forms(settings: RunSettings, problems: Problems) -> None:
    """Add every mistake in `save.also` to `problems`."""
    if settings.save.also and settings.method.kind != FULL:
        problems.add("only a whole model is written in several forms", where=ALSO, fix="take it out")
    elif settings.save.also:
        _further(settings, problems)


def _further(settings: RunSettings, problems: Problems) -> list[Form]:
    found: list[Form] = []
    for number, entry in enumerate(settings.save.also):
        where = f"{ALSO}.{number}"
        own = Problems()
        form = _form(entry, where, settings, own)
        if form and not own.found:
            _check_alone(form, where, [*found, Form("", settings)], own)
        if form and not own.found:
            found.append(form)
        problems.found += own.found
    return found


def _form(entry: Any, where: str, settings: RunSettings, problems: Problems) -> Form | None:
    if not isinstance(entry, Mapping):
        problems.add(
            f"{entry!r} is not a mapping of names to values", where=where,
            fix='as in {"suffix": "_ema", "dtype": "fp32"}',
        )
        return None
    _check_suffix(entry.get(SUFFIX), f"{where}.{SUFFIX}", problems)
    items = {item.path: item for item in declared(SaveSettings) if item.path in OWN}
    changes: dict[str, Any] = {}
    for name, raw in entry.items():
        if name in items:
            try:
                changes[name] = parse_value(items[name], raw)
            except ValueError as error:
                problems.found.append(Problem(str(error), where=f"{where}.{name}"))
        elif name != SUFFIX:
            problems.add("a form has no such setting", where=f"{where}.{name}", fix=nearest(str(name), [SUFFIX, *OWN]))
    if changes.get("ema") == KEEP:
        _check_kept(settings, f"{where}.ema", problems)
    save = replace(settings.save, also=(), **changes)
    at = f"{where}.dtype" if "dtype" in changes else Form.dtype_at
    return Form(str(entry.get(SUFFIX)), replace(settings, save=save), at)


def _check_suffix(suffix: Any, where: str, problems: Problems) -> None:
    if not suffix:
        problems.add("what stands behind the name is not said", where=where, fix="for instance: _ema")
    elif not isinstance(suffix, str) or not _ALLOWED.fullmatch(suffix):
        problems.add(
            f"{suffix!r} cannot stand behind a file's name", where=where,
            fix="at most 32 letters from a to z, digits, _, - and ., no . at the end",
        )
    elif _TAKEN.fullmatch(suffix):
        problems.add(f"{suffix} looks like the number of a stage or a step", where=where, fix="for instance: _ema")


def _check_kept(settings: RunSettings, where: str, problems: Problems) -> None:
    if settings.ema.decay is None:
        problems.add(NO_AVERAGE, where=where, fix="set ema.decay, or choose use or drop")
    elif not settings.method.train_unet:
        problems.add(NO_UNET, where=where, fix="choose use or drop")


def _check_alone(form: Form, where: str, others: list[Form], problems: Problems) -> None:
    """A form has a name of its own, also where a disk does not tell a from A, and differs from the others."""
    if any(form.suffix.casefold() == other.suffix.casefold() for other in others):
        problems.add(f"{form.suffix} stands behind another form too", where=f"{where}.{SUFFIX}", fix="choose another")
    same = next((other for other in others if _said(other) == _said(form)), None)
    if same:
        problems.add(
            f"it is the same as {same.suffix or 'the main form'}", where=where, fix=f"change one of {', '.join(OWN)}"
        )


def _said(form: Form) -> tuple[Any, ...]:
    save, averages = form.settings.save, form.settings.ema.decay is not None
    return save.dtype, save.vae, save.text_encoder, save.ema if averages or save.ema == DROP else USE
