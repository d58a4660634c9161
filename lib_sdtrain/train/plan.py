"""What a run will do, worked out before any heavy work: the dry run prints it, the loop follows it."""
from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from lib_sdtrain.data.catalogue import without_captions
from lib_sdtrain.data.concepts import FILEWORDS, Material
from lib_sdtrain.data.review import remarks
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.data.sizes import parse_resolution
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Notice
from lib_sdtrain.model.checkpoint import Checkpoint, open_checkpoint
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.vae_file import open_vae
from lib_sdtrain.settings.lengths import UNITS, Length
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.train.checks import check_settings
from lib_sdtrain.train.data_plan import fit_materials, open_index, said_of
from lib_sdtrain.train.ema import check_average
from lib_sdtrain.train.embeddings import check_named
from lib_sdtrain.train.families import check_family, family_of
from lib_sdtrain.train.folders import Reading, check_apart, concept_folders, read_folders
from lib_sdtrain.train.held_out import hold_out
from lib_sdtrain.train.preview_requests import check_previews, preview_bodies
from lib_sdtrain.train.results import CHECKPOINT, check_folders, check_overwrites, result_stem
from lib_sdtrain.train.studio import Studio, check_studio
from lib_sdtrain.train.token_vectors import check_words_said

if TYPE_CHECKING:
    from lib_sdtrain.train.state import SavedState


@dataclass(frozen=True)
class Plan:
    """Settings with every length in optimiser steps. `missing_class` is how many class pictures must be made;
    `class_folders` is where, None for a concept without a class, or whose own pictures stand for it.

    `held_out` are the pictures to validate on, a concept each. `earlier` tells the weights that a later stage begins
    with; the checkpoint's own are replaced by them. `studio` draws what the settings leave to the surroundings. `ahead`
    is how many steps more (or less) were taken up to a state than its samples are now: the batch was another then.
    `former` is what lies before a later stage, by the units of lengths.
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
    ahead: int = 0
    former: Mapping[str, Fraction] = field(default_factory=dict)

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
        return self.in_steps(self.settings.train.length) + self.lead

    @property
    def lead(self) -> int:
        """Steps by which the count is ahead of where training is on its way to the end."""
        return 0 if self.settings.train.length.unit == "steps" else self.ahead

    def after(self, state: SavedState | None) -> Plan:
        """The plan of a run that goes on from a state, if there is one. What is counted in samples or epochs ends where
        it would have, and the schedule goes on where it was, whatever a step takes in now.
        """
        if state is None:
            return self
        return replace(self, ahead=state.facts["step"] - math.ceil(state.facts["samples"] / self.samples_a_step))

    def in_steps(self, length: Length | None) -> int:
        """A length in optimiser steps; 0 for None."""
        return length.steps(self.samples_a_step, self.epoch_samples) if length else 0

    def in_samples(self, length: Length) -> int:
        """A length in samples, whole steps."""
        return self.in_steps(length) * self.samples_a_step

    def behind(self, stages: Iterable[tuple[Plan, int]]) -> Plan:
        """The plan of a stage that follows these, of each its plan and the steps that it has."""
        former = dict.fromkeys(UNITS, Fraction())
        for plan, steps in stages:
            samples = steps * plan.samples_a_step
            own = {"steps": steps, "samples": samples, "epochs": Fraction(samples, plan.epoch_samples)}
            former = {unit: amount + own[unit] for unit, amount in former.items()}
        return replace(self, former=former)

    def sample_at(self, length: Length) -> int:
        """The plan's own sample, a step's first, at which all stages together have come to a length; 0 where former
        ones had come to it.
        """
        left = Fraction(length.amount) - self.former.get(length.unit, 0)
        steps = self.in_steps(replace(length, amount=left)) - (self.ahead if length.unit == "steps" else 0)
        return max(0, steps) * self.samples_a_step

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
    studio: Studio | None = None, trained: Collection[str] = (),
) -> Generator[Event, None, Plan]:  # fmt: skip
    """Check everything, read the folders; yields progress and notices, returns the plan. `anew`: a run begins, whose
    files must not be there yet. `studio` is what the surroundings draw with, None where there are none. What `trained`
    names, by SHA-256, was trained on already: none of it is held out.

    Raises `UserError` with all mistakes found.
    """
    problems = Problems()
    check_settings(settings, device, problems)
    check_folders(settings, problems)
    if anew:
        check_overwrites(settings, problems)
    checkpoint = problems.tried(lambda: open_checkpoint(settings.model.checkpoint))
    if checkpoint:
        problems.tried(lambda: check_checkpoint(checkpoint, settings.model.vae))
        check_family(checkpoint.family, settings, problems)
    target = problems.tried(lambda: parse_resolution(settings.data.resolution))
    if target:
        check_previews(settings, target, checkpoint.family if checkpoint else None, problems)
        bodies = preview_bodies(settings, target)
        check_studio(settings, checkpoint.path if checkpoint else None, bodies, studio, problems)
    folders = [concept_folders(concept, index, checkpoint, outputs, problems)
               for index, concept in enumerate(settings.data.concepts)]
    reading = Reading(token, open_index(outputs))
    materials = yield from read_folders(settings, folders, reading, problems)
    check_apart(materials, folders, problems)
    problems.raise_if_any()
    materials, held = yield from hold_out(materials, settings, reading, problems, trained)
    roots = [instance for instance, _ in folders]
    materials = yield from fit_materials(materials, roots, settings.data, problems)
    check_average(settings, problems, sum(material.epoch_samples for material in materials))
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


def check_checkpoint(checkpoint: Checkpoint, vae: str) -> None:
    """Raise `UserError` for what is missing to train this checkpoint; `vae` is a VAE file, empty for its own."""
    if vae:
        open_vae(vae, checkpoint.family.vae)
    elif not checkpoint.parts["vae"]:
        raise UserError("it has no VAE", where=str(checkpoint.path), fix="name a VAE file with model.vae")
    for part, words in (("unet", "UNet"), ("text_encoder", "text encoder")):
        if not checkpoint.parts[part]:
            raise UserError(f"it has no {words}", where=str(checkpoint.path), fix="train from a complete checkpoint")


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


def rescan_class_pictures(plan: Plan, token: CancelToken) -> Generator[Event, None, Plan]:
    """The plan once the class pictures stand in their folders."""
    materials = []
    for material, folder in zip(plan.materials, plan.class_folders, strict=True):
        wanted = material.concept.num_class_images
        if folder is not None and len(material.class_pictures) < wanted:
            material = replace(material, class_pictures=(yield from open_folder(folder, token, wanted)))
        materials.append(material)
    return replace(plan, materials=tuple(materials))
