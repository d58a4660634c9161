"""The folders of pictures: where they are, that those of subjects and classes stay apart, and what is in them."""
from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lib_sdtrain.data.catalogue import uncaptioned
from lib_sdtrain.data.concepts import Captions, Material, Picture, check_folder
from lib_sdtrain.data.groups import KOHYA, with_folder_words, wordless_folders
from lib_sdtrain.data.index import PictureIndex
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.places import check_writable, is_dir, is_file
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.train.data_plan import captions_of

NAMED = 3


@dataclass(frozen=True)
class Reading:
    """What reading a folder needs; `index` knows the files of earlier times."""

    token: CancelToken
    index: PictureIndex | None = None
    captions: Captions | None = None


def concept_folders(
    concept: Concept, index: int, checkpoint: Checkpoint | None, outputs: Path, problems: Problems
) -> tuple[Path | None, Path | None]:
    """(folder of the subject, folder of its class), checked; None for one that there is not or that has a mistake."""
    where = f"data.concepts.{index}"
    instance = problems.tried(lambda: check_folder(concept.instance_dir, f"{where}.instance_dir")) \
        if concept.instance_dir else None
    if not concept.class_prompt:
        return instance, None
    if concept.class_from == OWN_PICTURES:  # nothing is ever made among them
        _check_own(concept, instance, where, problems)
        return instance, None
    if not concept.class_dir:
        return instance, outputs / "class-pictures" / _class_folder_name(concept, checkpoint) if checkpoint else None
    folder = Path(concept.class_dir).expanduser()
    if is_file(folder):
        problems.add(f"{folder} is a file, not a folder", where=f"{where}.class_dir")
        return instance, None
    if not is_dir(folder):  # it is made
        problems.tried(lambda: check_writable(folder, f"{where}.class_dir"))
    if instance and folder.resolve() == instance.resolve():
        # chosen by mistake it would make every such thing look like the subject, and pictures would be made in there:
        # who means it says so
        problems.add(
            "it is the folder of the subject's own pictures", where=f"{where}.class_dir",
            fix="use another one, or set class_from to own if the subject's pictures are meant to stand for the class",
        )
    return instance, folder


def _check_own(concept: Concept, instance: Path | None, where: str, problems: Problems) -> None:
    """A class folder may be named beside the own pictures if it is theirs."""
    if concept.class_dir and instance and Path(concept.class_dir).expanduser().resolve() != instance.resolve():
        problems.add(
            "the class pictures are the subject's own, and a folder of others is given", where=f"{where}.class_dir",
            fix="leave it out, or set class_from to folder",
        )


def _class_folder_name(concept: Concept, checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256(concept.class_prompt.encode()).hexdigest()[:8]
    return f"{safe_name(checkpoint.name)}-{safe_name(concept.class_prompt)[:40]}-{digest}"


def check_apart(
    materials: Sequence[Material], folders: Sequence[tuple[Path | None, Path | None]], problems: Problems
) -> None:
    """Folders are read with those below: class pictures there would be trained on as the subject, or the other way."""
    subjects = {instance.resolve() for instance, _ in folders if instance}
    for index, (material, (instance, folder)) in enumerate(zip(materials, folders, strict=True)):
        own = folder.resolve() if folder else None
        of_another = own in subjects and not (instance and instance.resolve() == own)
        made = of_another and len(material.class_pictures) < material.concept.num_class_images
        around = subjects.intersection(own.parents if own else ())
        inside = [subject for subject in subjects if own in subject.parents]
        where = f"data.concepts.{index}.class_dir"
        if around or made:
            problems.add(
                f"it lies in {min(around, default=own)}, all of whose pictures are a subject's", where=where,
                fix="choose a folder beside it",
            )
        elif inside:
            problems.add(f"the subject's pictures in {min(inside)} lie in it", where=where,
                         fix="choose a folder beside them")  # fmt: skip


def read_folders(
    settings: RunSettings, folders: Sequence[tuple[Path | None, Path | None]], reading: Reading, problems: Problems
) -> Generator[Event, None, list[Material]]:
    """What there is to train on in each concept's folders. Yields progress and notices."""
    materials = []
    for index, concept in enumerate(settings.data.concepts):
        captions = problems.tried(partial(captions_of, concept, index, folders[index][0], settings.data, reading.index))
        own = replace(reading, captions=captions)
        materials.append((yield from _material(concept, index, folders[index], own, problems)))
    return materials


def _material(
    concept: Concept, index: int, folders: tuple[Path | None, Path | None], reading: Reading, problems: Problems
) -> Generator[Event, None, Material]:
    where = f"data.concepts.{index}.instance_dir"
    instance, class_folder = folders
    found: Sequence[Picture] = ()
    if instance and reading.captions:
        found = yield from open_folder(instance, reading.token, None, reading.captions, reading.index)
        found = with_folder_words(found, concept, instance)
    if instance and reading.captions and not found:
        problems.add(f"{instance} has no picture that can be read", where=where, fix=_what_is_there(instance))
    elif instance and not concept.instance_prompt:
        _check_said(found, concept, instance, f"data.concepts.{index}.instance_prompt", problems)
    kept: Sequence[Picture] = ()
    if class_folder and is_dir(class_folder):
        kept = yield from open_folder(class_folder, reading.token, concept.num_class_images, index=reading.index)
    return Material(concept, found, kept)


def _check_said(pictures: Sequence[Picture], concept: Concept, root: Path, where: str, problems: Problems) -> None:
    """Without a prompt, what is said of a picture must stand beside it or, kohya's way, in its folder's name."""
    bare = uncaptioned(pictures)
    if bare and concept.weighting == KOHYA:
        named = wordless_folders(pictures, root)
        shown = ", ".join(named[:NAMED]) + (" ..." if len(named) > NAMED else "")
        problems.add(
            f"{bare} of {len(pictures)} pictures have no caption, nor words in the name of their folder: {shown}",
            where=where, fix="name the folder as in 10_sks dog, or write a prompt",
        )
    elif bare:
        problems.add(
            f"{bare} of {len(pictures)} pictures have no caption and there is no prompt", where=where,
            fix="write one, for instance: a photo of sks dog",
        )


def _what_is_there(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "the folder is empty"
    return f"it holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
