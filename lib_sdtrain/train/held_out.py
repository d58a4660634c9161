"""Pictures that are kept from training to measure it by: of a folder of their own, or a share of each concept's."""
from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from lib_sdtrain.data.catalogue import chosen, looks_of, names_of, uncaptioned
from lib_sdtrain.data.concepts import Material, check_folder
from lib_sdtrain.data.filters import Filter
from lib_sdtrain.data.randomness import key
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.data.sizes import Sizing, sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.data_plan import fitting_pictures

DIR, FRACTION = "validation.dir", "validation.fraction"


def check_validation(settings: RunSettings, problems: Problems) -> None:
    """Add contradictions to `problems`."""
    chosen = settings.validation
    if chosen.dir and chosen.fraction:
        problems.add("a folder and a share are given", where=FRACTION, fix="give one of them")
    if chosen.every and not (chosen.dir or chosen.fraction):
        problems.add(
            "there is nothing to validate on", where="validation.every", fix=f"give {DIR} or {FRACTION}"
        )


def hold_out(
    materials: Sequence[Material], settings: RunSettings, token: CancelToken, problems: Problems
) -> Generator[Event, None, tuple[list[Material], list[Material]]]:
    """(what is trained on, what is validated on), as the settings say. Yields progress and notices."""
    chosen, kept, held = settings.validation, list(materials), []
    sizing, data = sizing_of(settings.data), settings.data
    by_columns = Filter(data.filter) if data.filter else None
    if chosen.dir:
        held = yield from of_folder(materials, chosen.dir, token, problems)
        held = yield from _fitted(held, sizing, by_columns)
    elif chosen.fraction:
        fitting = yield from _fitted(kept, sizing, by_columns)
        kept, held = split(fitting, chosen.fraction, settings.train.seed, problems)
    return kept, held


def _fitted(
    materials: Sequence[Material], sizing: Sizing, chosen: Filter | None
) -> Generator[Event, None, list[Material]]:
    """The materials without pictures that have no place in training."""
    found = []
    for index, material in enumerate(materials):
        pictures = yield from fitting_pictures(material, sizing, chosen, f"data.concepts.{index}")
        found.append(replace(material, pictures=pictures))
    return found


def split(
    materials: Sequence[Material], fraction: float, seed: int, problems: Problems
) -> tuple[list[Material], list[Material]]:
    """(what is trained on, what is held out): of each concept the share `fraction`, at least one picture.

    Which ones depends on the seed and on the pictures' contents alone, so the same ones stay out when a run goes on.
    """
    kept, held = [], []
    for index, material in enumerate(materials):
        count = max(1, round(fraction * len(material.pictures)))
        if material.pictures and count >= len(material.pictures):
            problems.add(
                f"nothing is left to train of {len(material.pictures)} pictures", where=FRACTION,
                fix=f"concept {index} needs more pictures, or give {DIR}",
            )
        drawn = (key(seed, f"validation {sha256}") for sha256, _ in looks_of(material.pictures))
        out = np.zeros(len(material.pictures), bool)
        out[np.argsort(np.fromiter(drawn, np.uint64, len(out)), kind="stable")[:count]] = True
        kept.append(replace(material, pictures=chosen(material.pictures, np.flatnonzero(~out))))
        held.append(Material(material.concept, chosen(material.pictures, np.flatnonzero(out))))
    return kept, held


def of_folder(
    materials: Sequence[Material], folder: str, token: CancelToken, problems: Problems
) -> Generator[Event, None, list[Material]]:
    """The pictures of a folder by the concept whose prompt they have. Yields progress and notices."""
    try:
        root = check_folder(folder, DIR)
    except UserError as error:
        problems.absorb(error)
        return []
    found = yield from open_folder(root, token)
    named = {material.concept.name: index for index, material in enumerate(materials) if material.concept.name}
    owner = np.fromiter((named.get(name.partition("/")[0], 0) if "/" in name else 0 for name in names_of(found, root)),
                        np.int64, len(found))
    held = [Material(material.concept, chosen(found, np.flatnonzero(owner == index)))
            for index, material in enumerate(materials)]
    if not found:
        problems.add(f"{root} has no picture that can be read", where=DIR)
    for material in held:
        bare = uncaptioned(material.pictures)
        if bare and not material.concept.instance_prompt:
            problems.add(f"{bare} pictures have no caption and {material.concept.name} no prompt", where=DIR)
    return held
