"""The files and folders that settings name: what a page may use of them is the host's word."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.fields import PATH_KINDS, declared, get_path
from lib_sdtrain.settings.layers import Layer, resolve, to_plain
from lib_sdtrain.settings.run import Concept, RunSettings


def paths_of(settings: RunSettings) -> Iterator[tuple[str, str]]:
    """Every setting that is a file or a folder, with its value, also those that a later stage has."""
    yield from _own_paths(settings)
    plain = to_plain(replace(settings, stages=()))
    for number, entry in enumerate(settings.stages):
        if not isinstance(entry, Mapping):
            continue
        try:
            stage = resolve(RunSettings, [Layer("run", plain), Layer("stage", {**entry, "stages": []})]).settings
        except UserError:
            return  # the plan tells its mistakes, and none of the stages can begin
        yield from ((f"stages.{number}.{path}", value) for path, value in _own_paths(stage))
        plain = to_plain(stage)


def _own_paths(settings: RunSettings) -> Iterator[tuple[str, str]]:
    for item in declared(RunSettings):
        if item.meta.kind in PATH_KINDS:
            yield item.path, get_path(settings, item.path)
    for index, concept in enumerate(settings.data.concepts):
        for item in declared(Concept):
            if item.meta.kind in PATH_KINDS:
                yield f"data.concepts.{index}.{item.path}", get_path(concept, item.path)
