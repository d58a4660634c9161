"""What a run leaves behind: the kinds of files, where they go and what they are called. Nothing is overwritten."""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.places import check_writable, is_dir
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, LORA
from lib_sdtrain.train.forms import Form, forms_of

CHECKPOINT = "checkpoint"
SUFFIX = ".safetensors"
_STEP = re.compile(r"-\d{6}$")


def result_kinds(settings: RunSettings) -> tuple[str, ...]:
    """The kinds of files, the one that the run is about last."""
    beside = (EMBEDDING,) if settings.embedding.name else ()
    if settings.method.kind == EMBEDDING:
        return beside
    return (*beside, LORA if settings.method.kind == LORA else CHECKPOINT)


def result_stem(settings: RunSettings, kind: str) -> str:
    """The name without step and suffix. An embedding's is the word by which prompts know it."""
    if kind == EMBEDDING:
        return settings.embedding.name
    return safe_name(settings.save.name or settings.data.concepts[0].name)


def written(settings: RunSettings) -> Iterator[tuple[str, Form]]:
    """The kind and form of each file that a save writes, the one that the run is about last."""
    for kind in result_kinds(settings):
        forms = forms_of(settings) if kind == CHECKPOINT else (Form("", settings),)
        yield from ((kind, form) for form in forms)


def result_folder(settings: RunSettings, kind: str) -> Path | None:
    """The folder that the settings say; None stands for the run's own."""
    chosen = settings.save.embedding_dir if kind == EMBEDDING else settings.save.dir
    return Path(chosen).expanduser().absolute() if chosen else None


def chosen_places(settings: RunSettings) -> Iterator[tuple[str, Path, str]]:
    """The kind, folder and name (without a step) of each file that a save writes where the settings say."""
    for kind, form in written(settings) if settings.data.concepts else ():
        if folder := result_folder(settings, kind):
            yield kind, folder, result_stem(settings, kind) + form.suffix


def check_folders(settings: RunSettings, problems: Problems) -> None:
    """Add to `problems` each folder of results in which nothing can be written: hours later would be too late."""
    for kind in result_kinds(settings):
        folder = result_folder(settings, kind)
        try:
            if folder is not None:
                check_writable(folder, "save.embedding_dir" if kind == EMBEDDING else "save.dir")
        except UserError as error:
            problems.absorb(error)


def results_called(folder: Path, stem: str) -> list[str]:
    """The files of a folder that are results of this name, of any step."""
    own = re.compile(re.escape(stem) + r"(-\d{6})?" + re.escape(SUFFIX))
    return sorted(path.name for path in folder.iterdir() if own.fullmatch(path.name)) if is_dir(folder) else []


def check_overwrites(settings: RunSettings, problems: Problems, own_files: Iterable[Path] = ()) -> None:
    """Add to `problems` each file of an earlier run that a run of these settings would overwrite, and what of its own
    it would; a run that goes on has `own_files` already.
    """
    own_names = {(file.parent, _STEP.sub("", file.stem)) for file in own_files}
    seen: set[tuple[Path, str]] = set()
    for kind, folder, stem in chosen_places(settings):
        if (folder, stem) in seen:
            problems.add(
                f"two files of the run are called {stem}{SUFFIX}", where="save.name", fix="choose another name"
            )
        seen.add((folder, stem))
        if (folder, stem) in own_names:
            continue
        there = results_called(folder, stem)
        if there:
            problems.add(
                f"{there[0]} is already there" + (f", and {len(there) - 1} more" if there[1:] else ""),
                where="embedding.name" if kind == EMBEDDING else "save.name",
                fix="choose another name; nothing is overwritten",
            )
