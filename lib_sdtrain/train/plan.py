"""What a run will do, worked out before any heavy work: the dry run prints it, the loop follows it."""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from lib_sdtrain.data.catalogue import uncaptioned, without_captions
from lib_sdtrain.data.concepts import FILEWORDS, Captions, Material, Picture, check_folder
from lib_sdtrain.data.groups import KOHYA
from lib_sdtrain.data.index import PictureIndex
from lib_sdtrain.data.review import remarks
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.data.sizes import parse_resolution
from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Notice
from lib_sdtrain.model.checkpoint import Checkpoint, open_checkpoint
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.vae_file import open_vae
from lib_sdtrain.places import check_writable, is_dir, is_file
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.train.checks import check_settings
from lib_sdtrain.train.data_plan import captions_of, fit_materials, open_index, said_of
from lib_sdtrain.train.embeddings import check_named
from lib_sdtrain.train.families import check_family, family_of
from lib_sdtrain.train.held_out import hold_out
from lib_sdtrain.train.preview_requests import check_previews, preview_bodies
from lib_sdtrain.train.results import CHECKPOINT, check_folders, check_overwrites, result_stem
from lib_sdtrain.train.studio import Studio, check_studio
from lib_sdtrain.train.token_vectors import check_words_said

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """What reading a folder needs; `index` knows the files of earlier times."""

    token: CancelToken
    index: PictureIndex | None = None
    captions: Captions | None = None


@dataclass(frozen=True)
class Plan:
    """Settings with every length in optimiser steps. `missing_class` is how many class pictures must be made;
    `class_folders` is where, None for a concept without a class, or whose own pictures stand for it.

    `held_out` are the pictures to validate on, a concept each. `earlier` tells the weights that a later stage begins
    with; the checkpoint's own are replaced by them. `studio` draws what the settings leave to the surroundings.
    """

    settings: RunSettings
    checkpoint: Checkpoint
    family: Family
    target: tuple[int, int]
    materials: tuple[Material, ...]
    class_folders: tuple[Path | None, ...]
    device: str
    held_out: tuple[Material, ...] = ()
    earlier: str = ""
    studio: Studio | None = None

    @property
    def pictures(self) -> int:
        """Instance pictures of all concepts."""
        return sum(len(material.pictures) for material in self.materials)

    @property
    def epoch_samples(self) -> int:
        """Samples of an epoch, repeats counted."""
        return sum(material.epoch_samples for material in self.materials)

    @property
    def samples_a_step(self) -> int:
        """Instance samples an optimiser step takes in."""
        return self.settings.train.batch_size * self.settings.train.gradient_accumulation_steps

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.in_steps(self.settings.train.length)

    def in_steps(self, length: Length | None) -> int:
        """A length in optimiser steps; 0 for None."""
        return length.steps(self.samples_a_step, self.epoch_samples) if length else 0

    def in_samples(self, length: Length) -> int:
        """A length in samples, whole steps."""
        return self.in_steps(length) * self.samples_a_step

    @property
    def missing_class(self) -> tuple[int, ...]:
        """Class pictures each concept still lacks."""
        return tuple(
            0 if folder is None else max(0, m.concept.num_class_images - len(m.class_pictures))
            for m, folder in zip(self.materials, self.class_folders, strict=True)
        )

    @property
    def name(self) -> str:
        """The stem of the files that are written."""
        return result_stem(self.settings, CHECKPOINT)


def make_plan(
    settings: RunSettings, outputs: Path, device: str, token: CancelToken, *, anew: bool = True,
    studio: Studio | None = None,
) -> Generator[Event, None, Plan]:  # fmt: skip
    """Check everything, read the folders; yields progress and notices, returns the plan. `anew`: a run begins, whose
    files must not be there yet. `studio` is what the surroundings draw with, None where there are none.

    Raises `UserError` with all mistakes found.
    """
    problems = Problems()
    check_settings(settings, device, problems)
    check_folders(settings, problems)
    if anew:
        check_overwrites(settings, problems)
    checkpoint = _try(problems, lambda: open_checkpoint(settings.model.checkpoint))
    if checkpoint:
        _try(problems, lambda: check_checkpoint(checkpoint, settings.model.vae))
        check_family(checkpoint.family, settings, problems)
    target = _try(problems, lambda: parse_resolution(settings.data.resolution))
    if target:
        check_previews(settings, target, checkpoint.family if checkpoint else None, problems)
        bodies = preview_bodies(settings, target)
        check_studio(settings, checkpoint.path if checkpoint else None, bodies, studio, problems)
    folders = [_folders(concept, index, checkpoint, outputs, problems)
               for index, concept in enumerate(settings.data.concepts)]
    materials = yield from _read_folders(settings, folders, Reading(token, open_index(outputs)), problems)
    _check_apart(materials, folders, problems)
    problems.raise_if_any()
    materials, held = yield from hold_out(materials, settings, token, problems)
    roots = [instance for instance, _ in folders]
    materials = yield from fit_materials(materials, roots, settings.data, problems)
    check_named(settings, said_of(materials, settings.data), problems)
    check_words_said(settings, said_of(materials, settings.data), problems)
    problems.raise_if_any()
    materials = yield from _with_own_class(materials)
    yield from remarks(materials)
    family = family_of(checkpoint.family, settings.model)
    return Plan(
        settings, checkpoint, family, target, tuple(materials),
        tuple(folder for _, folder in folders), device, tuple(held), studio=studio,
    )


def _read_folders(
    settings: RunSettings, folders: Sequence[tuple[Path | None, Path | None]], reading: Reading, problems: Problems
) -> Generator[Event, None, list[Material]]:
    materials = []
    for index, concept in enumerate(settings.data.concepts):
        captions = _try(problems, partial(captions_of, concept, index, folders[index][0], settings.data, reading.index))
        own = replace(reading, captions=captions)
        materials.append((yield from _material(concept, index, folders[index], own, problems)))
    return materials


def _try(problems: Problems, call: Callable[[], T]) -> T | None:
    try:
        return call()
    except UserError as error:
        problems.absorb(error)
        return None


def check_checkpoint(checkpoint: Checkpoint, vae: str) -> None:
    """Raise `UserError` for what is missing to train this checkpoint; `vae` is a VAE file, empty for its own."""
    if vae:
        open_vae(vae, checkpoint.family.vae)
    elif not checkpoint.parts["vae"]:
        raise UserError("it has no VAE", where=str(checkpoint.path), fix="name a VAE file with model.vae")
    for part, words in (("unet", "UNet"), ("text_encoder", "text encoder")):
        if not checkpoint.parts[part]:
            raise UserError(f"it has no {words}", where=str(checkpoint.path), fix="train from a complete checkpoint")


def _folders(
    concept: Concept, index: int, checkpoint: Checkpoint | None, outputs: Path, problems: Problems
) -> tuple[Path | None, Path | None]:
    where = f"data.concepts.{index}"
    instance = _try(problems, lambda: check_folder(concept.instance_dir, f"{where}.instance_dir")) \
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
        _try(problems, lambda: check_writable(folder, f"{where}.class_dir"))
    if instance and folder.resolve() == instance.resolve():
        # chosen by mistake it would make every such thing look like the subject, and pictures would be made in there:
        # who means it says so
        problems.add(
            "it is the folder of the subject's own pictures", where=f"{where}.class_dir",
            fix="use another one, or set class_from to own if the subject's pictures are meant to stand for the class",
        )
    return instance, folder


def _check_apart(
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


def _check_own(concept: Concept, instance: Path | None, where: str, problems: Problems) -> None:
    """A class folder may be named beside the own pictures if it is theirs."""
    if concept.class_dir and instance and Path(concept.class_dir).expanduser().resolve() != instance.resolve():
        problems.add(
            "the class pictures are the subject's own, and a folder of others is given", where=f"{where}.class_dir",
            fix="leave it out, or set class_from to folder",
        )


def _with_own_class(materials: Sequence[Material]) -> Generator[Event, None, list[Material]]:
    """Where they are asked for, the pictures that are trained on as class pictures too; a notice says so.

    Their captions tell of the subject: the class prompt stands for them, or has them in its place for them.
    """
    found = []
    for index, material in enumerate(materials):
        concept = material.concept
        if concept.class_prompt and concept.class_from == OWN_PICTURES:
            own = material.pictures if FILEWORDS in concept.class_prompt else without_captions(material.pictures)
            material = replace(material, class_pictures=own)
            yield Notice(text="the class pictures are the subject's own: the class will look like the subject",
                         where=f"data.concepts.{index}.class_from")
        found.append(material)
    return found


def _class_folder_name(concept: Concept, checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256(concept.class_prompt.encode()).hexdigest()[:8]
    return f"{safe_name(checkpoint.name)}-{safe_name(concept.class_prompt)[:40]}-{digest}"


def _material(
    concept: Concept, index: int, folders: tuple[Path | None, Path | None], reading: Reading, problems: Problems
) -> Generator[Event, None, Material]:
    where = f"data.concepts.{index}.instance_dir"
    instance, class_folder = folders
    found: Sequence[Picture] = ()
    if instance and reading.captions:
        found = yield from open_folder(instance, reading.token, None, reading.captions, reading.index)
    if instance and reading.captions and not found:
        problems.add(f"{instance} has no picture that can be read", where=where, fix=_what_is_there(instance))
    unnamed = uncaptioned(found)
    if unnamed and not concept.instance_prompt and concept.weighting != KOHYA:
        problems.add(
            f"{unnamed} of {len(found)} pictures have no caption and there is no prompt",
            where=f"data.concepts.{index}.instance_prompt", fix="write one, for instance: a photo of sks dog",
        )
    kept: Sequence[Picture] = ()
    if class_folder and is_dir(class_folder):
        kept = yield from open_folder(class_folder, reading.token, concept.num_class_images, index=reading.index)
    return Material(concept, found, kept)


def _what_is_there(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "the folder is empty"
    return f"it holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"


def rescan_class_pictures(plan: Plan, token: CancelToken) -> Generator[Event, None, Plan]:
    """The plan once the class pictures stand in their folders."""
    materials = []
    for material, folder in zip(plan.materials, plan.class_folders, strict=True):
        wanted = material.concept.num_class_images
        if folder is not None and len(material.class_pictures) < wanted:
            material = replace(material, class_pictures=(yield from open_folder(folder, token, wanted)))
        materials.append(material)
    return replace(plan, materials=tuple(materials))
