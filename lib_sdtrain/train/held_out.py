"""Pictures that are kept from training to measure it by: those of a folder, a share of each concept's, or a count."""
from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from lib_sdtrain.data.catalogue import Catalogue, captions_behind, chosen, looks_of, names_of, uncaptioned
from lib_sdtrain.data.concepts import Captions, Material, check_folder
from lib_sdtrain.data.filters import Filter
from lib_sdtrain.data.groups import with_folder_words
from lib_sdtrain.data.metadata import MetadataFile
from lib_sdtrain.data.randomness import key
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.data.sizes import Sizing, sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import Event, Notice
from lib_sdtrain.places import is_file
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.data_plan import fitting_pictures
from lib_sdtrain.train.folders import Reading

DIR, FRACTION, COUNT = "validation.dir", "validation.fraction", "validation.count"


def check_validation(settings: RunSettings, problems: Problems) -> None:
    """Add contradictions to `problems`."""
    chosen = settings.validation
    ways = ((chosen.dir, "a folder", DIR), (chosen.fraction, "a share", FRACTION), (chosen.count, "a count", COUNT))
    given = [(words, where) for value, words, where in ways if value]
    if len(given) > 1:
        words = " and ".join(words for words, _ in given)
        problems.add(f"{words} are given", where=given[-1][1], fix="give one of them")
    if chosen.every and not given:
        problems.add(
            "there is nothing to validate on", where="validation.every", fix=f"give {DIR}, {FRACTION} or {COUNT}"
        )


def hold_out(
    materials: Sequence[Material], settings: RunSettings, reading: Reading, problems: Problems,
    trained: Collection[str] = (),
) -> Generator[Event, None, tuple[list[Material], list[Material]]]:  # fmt: skip
    """(what is trained on, what is validated on), as the settings say, and nothing that was `trained` on before (by
    SHA-256). Yields progress and notices.
    """
    chosen, kept, held = settings.validation, list(materials), []
    sizing, data = sizing_of(settings.data), settings.data
    by_columns = Filter(data.filter) if data.filter else None
    if chosen.dir:
        there = yield from of_folder(materials, chosen.dir, reading, problems)
        held = yield from _fitted(there, sizing, by_columns, DIR)
        if any(material.pictures for material in there) and not any(material.pictures for material in held):
            problems.add(
                "none of its pictures is left after data.filter and the buckets", where=DIR,
                fix="give it pictures that they choose, with the columns of the metadata that the filter asks for",
            )
    elif chosen.fraction or chosen.count:
        fitting = yield from _fitted(kept, sizing, by_columns)
        there = [len(material.pictures) for material in fitting]
        share, count = chosen.fraction, chosen.count
        counts = apportioned(there, count, problems) if count else shares(there, share, problems)
        kept, held = split(fitting, counts, settings.train.seed, trained)
        if not any(material.pictures for material in held) and not problems.found:
            problems.add(
                "every picture that could be kept from training is trained on, itself or a copy of it",
                where=COUNT if count else FRACTION, fix=f"add pictures, or give {DIR}",
            )
    return kept, held


def _fitted(
    materials: Sequence[Material], sizing: Sizing, chosen: Filter | None, where: str = ""
) -> Generator[Event, None, list[Material]]:
    """The materials without pictures that have no place in training. They come from the setting `where`, else from
    their concepts.
    """
    found = []
    for index, material in enumerate(materials):
        pictures = yield from fitting_pictures(material, sizing, chosen, where or f"data.concepts.{index}")
        found.append(replace(material, pictures=pictures))
    return found


def shares(there: Sequence[int], fraction: float, problems: Problems) -> list[int]:
    """Of each concept's number of pictures the share `fraction`, at least one."""
    counts = [max(1, round(fraction * pictures)) for pictures in there]
    for index, (pictures, count) in enumerate(zip(there, counts, strict=True)):
        if pictures and count >= pictures:
            problems.add(
                f"nothing is left to train of {pictures} pictures", where=FRACTION,
                fix=f"concept {index} needs more pictures, or give {DIR}",
            )
    return counts


def apportioned(there: Sequence[int], count: int, problems: Problems) -> list[int]:
    """`count` pictures over concepts that have so many, in proportion by the largest remainders (Hamilton's method).

    Every concept of more than one picture gives at least one where `count` allows it, and each keeps one to train on.
    """
    most = [max(0, pictures - 1) for pictures in there]
    if count > sum(most):
        problems.add(
            f"{count} pictures cannot be kept from training: there are {sum(there)}, and each concept needs one to "
            "train on", where=COUNT, fix=f"at most {sum(most)}, or give {DIR}",
        )
        return most
    whole = max(1, sum(there))
    several = sum(own > 0 for own in most)
    least = [int(own > 0 and count >= several) for own in most]
    found = [max(low, count * pictures // whole) for low, pictures in zip(least, there, strict=True)]

    def lacks(index: int) -> int:
        """How far a concept is from its share, in parts of a picture that are one in `whole`."""
        return count * there[index] - found[index] * whole

    while sum(found) < count:
        found[max((index for index in range(len(there)) if found[index] < most[index]), key=lacks)] += 1
    while sum(found) > count:
        found[min((index for index in range(len(there)) if found[index] > least[index]), key=lacks)] -= 1
    return found


def hashes_of(materials: Iterable[Material]) -> list[list[str]]:
    """SHA-256 of the pictures of each concept."""
    return [[sha256 for sha256, _ in looks_of(material.pictures)] for material in materials]


def split(
    materials: Sequence[Material], counts: Sequence[int], seed: int, trained: Collection[str] = ()
) -> tuple[list[Material], list[Material]]:
    """(what is trained on, what is held out): so many pictures of each concept, fewer where the rest is `trained` on
    already (by SHA-256), or is a copy of a picture that is.

    Which ones depends on the seed and on the pictures' contents alone, so the same ones stay out when a run goes on,
    and all of fewer are among those of more.
    """
    hashes = hashes_of(materials)
    outs = []
    for own, count in zip(hashes, counts, strict=True):
        seen = np.fromiter((sha256 in trained for sha256 in own), bool, len(own))
        drawn = np.fromiter((key(seed, f"validation {sha256}") for sha256 in own), np.uint64, len(own))
        out = np.zeros(len(own), bool)
        out[np.lexsort((drawn, seen))[:count]] = True
        outs.append(out & ~seen)
    inside = {sha256 for own, out in zip(hashes, outs, strict=True) for sha256 in compress(own, ~out)}
    kept, held = [], []
    for material, own, out in zip(materials, hashes, outs, strict=True):
        out &= np.fromiter((sha256 not in inside for sha256 in own), bool, len(own))
        kept.append(replace(material, pictures=chosen(material.pictures, np.flatnonzero(~out))))
        held.append(Material(material.concept, chosen(material.pictures, np.flatnonzero(out))))
    return kept, held


def of_folder(
    materials: Sequence[Material], folder: str, reading: Reading, problems: Problems
) -> Generator[Event, None, list[Material]]:
    """The pictures of a folder by the concept whose prompt they have, with captions as its own have them. Yields
    progress and notices.
    """
    try:
        root = check_folder(folder, DIR)
    except UserError as error:
        problems.absorb(error)
        return []
    found = yield from open_folder(root, reading.token, index=reading.index)
    named = {material.concept.name: index for index, material in enumerate(materials) if material.concept.name}
    owner = np.fromiter((named.get(name.partition("/")[0], 0) if "/" in name else 0 for name in names_of(found, root)),
                        np.int64, len(found))
    if not found:
        problems.add(f"{root} has no picture that can be read", where=DIR)
    held = []
    for index, material in enumerate(materials):
        concept, own = material.concept, found.chosen(np.flatnonzero(owner == index))
        captions = problems.tried(partial(_captions_there, material, root, reading)) if own else None
        if captions:
            own = own.captioned(captions)
            yield from _said_of_others(material, own, captions)
        held.append(Material(concept, with_folder_words(own, concept, root)))
        bare = uncaptioned(held[-1].pictures)
        if bare and not concept.instance_prompt:
            problems.add(f"{bare} pictures have no caption and {concept.name} no prompt", where=DIR,
                         fix="write captions beside them, or a prompt")
    return held


def _captions_there(material: Material, root: Path, reading: Reading) -> Captions:
    """As those of the concept's own pictures. A metadata file of the same name that lies in the folder tells of what is
    there; else the concept's own file does. Raises `UserError` for one that cannot be read.
    """
    captions = captions_behind(material.pictures, Path(material.concept.instance_dir).expanduser())
    file = captions.metadata
    if file and is_file(root / file.path.name):
        file = MetadataFile(str(root / file.path.name), DIR, reading.index)
    return replace(captions, root=root, metadata=file, mask_dir=None)  # the plain error asks for no masks


def _said_of_others(material: Material, held: Catalogue, captions: Captions) -> Iterator[Notice]:
    """A notice where pictures that are trained on are called as some of these: a row of one file then tells of both."""
    trained, file = captions_behind(material.pictures, captions.root), captions.metadata
    if file is None or file is not trained.metadata:
        return
    names = set(names_of(held, captions.root))
    if both := sorted(names.intersection(names_of(material.pictures, trained.root))):
        yield Notice(
            text=f"{len(both)} pictures are called as pictures that are trained on ({both[0]}), and what "
                 f"{file.path.name} says is taken for both: a file of that name in the folder tells them apart",
            where=DIR,
        )  # fmt: skip
