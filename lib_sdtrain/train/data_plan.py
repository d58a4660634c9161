"""What a run's pictures come to: which find a place, and the table of sizes."""
from __future__ import annotations

import hashlib
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_sdtrain.data import catalogue
from lib_sdtrain.data.bigasp import read_aliases
from lib_sdtrain.data.captions import replace_words
from lib_sdtrain.data.concepts import Captions, Group, Material, Picture, check_folder, prompt_of
from lib_sdtrain.data.draws import BIGASP, NO_GENERATOR, Draws
from lib_sdtrain.data.filters import Filter, number_or_text
from lib_sdtrain.data.groups import hint, weighted
from lib_sdtrain.data.index import PictureIndex
from lib_sdtrain.data.metadata import MetadataFile
from lib_sdtrain.data.mirrored import number_of, ways_of, ways_of_chance
from lib_sdtrain.data.sizes import Misfit, Size, Sizing, sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import Event, Notice
from lib_sdtrain.model.hashes import sha256
from lib_sdtrain.settings.run import Concept, DataSettings
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.train.embeddings import library_of, named_files
from lib_sdtrain.train.long_prompts import CHUNK, with_embeddings

if TYPE_CHECKING:
    from lib_sdtrain.train.plan import Plan

HIGHEST_SCORE = 99
MEASURED = 500


def fit_materials(
    materials: Sequence[Material], roots: Sequence[Path], data: DataSettings, problems: Problems
) -> Generator[Event, None, list[Material]]:
    """The materials, whose pictures lie below `roots`, without the pictures that have no place, weighted.

    Yields a notice for each picture that is left out. A concept that is left with none is a problem.
    """
    sizing, done = sizing_of(data), []
    chosen = Filter(data.filter) if data.filter else None
    for index, (material, root) in enumerate(zip(materials, roots, strict=True)):
        where = f"data.concepts.{index}"
        if text := hint(root, material.concept):
            yield Notice(text=text, where=f"{where}.weighting")
        fitting = yield from fitting_pictures(material, sizing, chosen, where)
        if not fitting:
            problems.add(
                "none of its pictures is left after data.filter and the buckets", where=f"{where}.instance_dir",
                fix="choose other buckets, larger pictures or another filter",
            )
            continue
        try:
            grouped = weighted(replace(material, pictures=fitting), root, where)
        except UserError as error:
            problems.absorb(error)
            continue
        if grouped.epoch is not None and not grouped.groups:
            problems.add("all of its pictures weigh 0", where=f"{where}.instance_dir", fix="raise a weight")
        if data.caption_generator != NO_GENERATOR and any(group.shuffle for group in grouped.groups):
            yield Notice(text=f"shuffle_tags.txt has no effect: {data.caption_generator} draws the tags anew",
                         where="data.caption_generator")  # fmt: skip
        if data.caption_generator == BIGASP:
            _check_scores(grouped, problems)
        done.append(grouped)
    return done


def _check_scores(material: Material, problems: Problems) -> None:
    for picture in material.pictures:
        score = number_or_text(picture.column("score"))
        if score not in (None, "") and not (isinstance(score, (int, float)) and 0 <= score <= HIGHEST_SCORE):
            problems.add(
                f"its score {score!r} is not a number from 0 to {HIGHEST_SCORE}", where=str(picture.path),
                fix="correct the column score of the metadata",
            )


def captions_of(
    concept: Concept, index: int, root: Path | None, data: DataSettings, known: PictureIndex | None = None
) -> Captions | None:
    """Where a concept's captions and masks come from; None without a folder. A metadata file that is `known` is not
    read again. Raises `UserError` for a missing one.
    """
    if root is None:
        return None
    name, where = concept.metadata_file, f"data.concepts.{index}.metadata_file"
    file = MetadataFile(name, where, known) if name else None
    masks = check_folder(concept.mask_dir, f"data.concepts.{index}.mask_dir") if concept.mask_dir else None
    keep_lines = data.enable_wildcard and data.caption_generator == NO_GENERATOR
    return Captions(root, file, concept.caption_column, concept.filename_captions, keep_lines, masks)


def beyond_pictures(plan: Plan) -> list[Any]:
    """What besides pictures and captions decides what is learnt: weights, masks, boxes, scores, aliases, embeddings;
    empty without any of them.
    """
    settings, found = plan.settings, []
    for material in plan.materials:
        if material.groups:
            found.append([[g.name, g.weight, list(g.multipliers or ()), g.flip_p, g.caption_dropout, g.shuffle,
                           g.loss_scale, g.batch_id] for g in material.groups])
        columns = [settings.data.boxes_column] * settings.loss.masked
        columns += ["score"] * (settings.data.caption_generator == BIGASP)
        rows = [[str(picture.columns.get(name)) for name in columns] for picture in material.pictures]
        found += [rows] * bool(columns)
        if settings.loss.masked:
            found.append([hashlib.sha256(p.mask.read_bytes()).hexdigest() if p.mask else "" for p in material.pictures])
    if settings.data.tag_aliases:
        found.append(read_aliases(settings.data.tag_aliases, "data.tag_aliases"))
    if embeddings := named_files(settings, texts_of(plan.materials)):
        found.append([[path.stem, sha256(path)] for path in embeddings])
    return found


def texts_of(materials: Iterable[Material]) -> Iterator[str]:
    """Every prompt and caption of these materials."""
    for material in materials:
        yield from (material.concept.instance_prompt, material.concept.class_prompt)
        for pictures in (material.pictures, material.class_pictures):
            yield from (picture.caption for picture in pictures if picture.caption)


def said_of(materials: Iterable[Material], data: DataSettings) -> Iterator[str]:
    """What training says of every picture, before tags are shuffled or dropped: captions in their prompts, with words
    replaced as they are from some sample on.
    """
    for material in materials:
        sides = ((material.pictures, material.concept.instance_prompt),
                 (material.class_pictures, material.concept.class_prompt))  # fmt: skip
        for pictures, prompt in sides:
            for picture in pictures:
                said = prompt_of(picture.caption, prompt, picture)
                yield from {said, replace_words(said, data.replace_words)}
        yield material.concept.class_prompt  # its pictures may not be made yet


def open_index(outputs: Path) -> PictureIndex | None:
    """What is known of pictures from earlier times, beside the outputs; None where there are none yet, or it cannot be
    written there.
    """
    if not outputs.is_dir():
        return None
    try:
        return PictureIndex(outputs / "pictures.sqlite")
    except (OSError, sqlite3.Error):
        return None


def draws_of(plan: Plan) -> Draws:
    """The samples of a run."""
    settings = plan.settings
    return Draws(
        plan.materials, settings.data, settings.train.seed, settings.train.batch_size,
        plan.sample_at(settings.data.replace_words_from), plan.in_samples(settings.data.refresh_crops),
    )


def token_report(plan: Plan, draws: Draws) -> dict[str, Any]:
    """How long the captions of the first samples are: `longest` in tokens, `cut` (share that loses its end) and
    `chunks`, the share of captions by the tokens that they take: 75, 150, 225.
    """
    from lib_sdtrain.model.tokenizer import Tokenizer

    tokenizer, limit = Tokenizer(), int(plan.settings.model.max_token_length)
    find = library_of(plan.settings, plan.family, tokenizer).find
    samples = max(1, min(MEASURED, plan.steps * plan.samples_a_step))
    lengths = [len(with_embeddings(tokenizer.encode(draws.at(index).prompt), find)) for index in range(samples)]
    chunks = Counter(min(limit, max(1, math.ceil(length / CHUNK)) * CHUNK) for length in lengths)
    return {
        "longest": max(lengths), "cut": round(sum(length > limit for length in lengths) / samples, 4),
        "chunks": {str(size): round(count / samples, 4) for size, count in sorted(chunks.items())},
    }


def token_line(report: Mapping[str, Any]) -> str:
    """The report for people."""
    parts = ", ".join(f"{share:.0%} take {size}" for size, share in report["chunks"].items())
    lost = f"; {report['cut']:.0%} are cut off: raise model.max_token_length" if report["cut"] else ""
    return f"captions of up to {report['longest']} tokens: {parts}{lost}"


def fitting_pictures(
    material: Material, sizing: Sizing, chosen: Filter | None, where: str
) -> Generator[Event, None, Sequence[Picture]]:
    """The pictures that data.filter chooses and that have a place; yields notices of the others."""
    pictures, filtered = material.pictures, 0
    kept, why = np.ones(len(pictures), bool), {}
    for place, picture in enumerate(pictures if chosen else ()):
        if not chosen({name: picture.column(name) for name in chosen.columns}):
            kept[place], filtered = False, filtered + 1
    sizes, _, of_size = _sizes(pictures)
    for number, size in enumerate(sizes):
        if reason := misfit(sizing, size):
            why |= dict.fromkeys(np.flatnonzero(kept & (of_size == number)).tolist(), reason)
    for place, reason in sorted(why.items()):
        kept[place] = False
        yield Notice(text=f"left out: {reason}", where=str(pictures[place].path))
    if filtered:
        yield Notice(text=f"{filtered} of {len(pictures)} pictures left out by data.filter", where=where)
    return catalogue.chosen(pictures, np.flatnonzero(kept))


def _sizes(pictures: Sequence[Picture]) -> tuple[list[Size], np.ndarray, np.ndarray]:
    """The different sizes, how many pictures have each, and the number of each picture's."""
    sizes = catalogue.sizes_of(pictures).astype(np.int64)
    packed, of_size, counts = np.unique(sizes[:, 0] << 32 | sizes[:, 1], return_inverse=True, return_counts=True)
    return [(int(one) >> 32, int(one) & 0xFFFFFFFF) for one in packed], counts, of_size


def concept_rows(materials: Sequence[Material]) -> list[dict[str, Any]]:
    """What each concept comes to: `name`, `images`, `share` of all samples, and its `groups` where it has any.

    A group's `multiply` tells how often each of its pictures is seen for one of the rarest's.
    """
    total = sum(material.concept.weight for material in materials)
    rows = []
    for material in materials:
        share = material.concept.weight / total
        row = {"name": material.concept.name, "images": len(material.pictures), "share": round(share, 6)}
        if material.groups:
            row["groups"] = _group_rows(material.groups, share)
        rows.append(row)
    return rows


def _group_rows(groups: Sequence[Group], share: float) -> list[dict[str, Any]]:
    total = sum(group.weight for group in groups)
    rarest = min(group.weight / len(group.members) for group in groups)
    return [
        {"name": group.name, "images": len(group.members), "share": round(share * group.weight / total, 6),
         "multiply": round(group.weight / len(group.members) / rarest, 2)}
        for group in groups
    ]


def group_lines(row: Mapping[str, Any]) -> list[str]:
    """The groups of a concept for people."""
    return [f"    {group['name']}: {group['images']} pictures, {group['share']:.1%} of samples, x{group['multiply']:g}"
            for group in row.get("groups", ())]


def misfit(sizing: Sizing, size: Size) -> str:
    """Why pictures of this size have no place; empty when they have one."""
    try:
        sizing.place(size)
    except Misfit as error:
        return str(error)
    return ""


def bucket_table(materials: Sequence[Material], data: DataSettings) -> list[dict[str, Any]]:
    """Every size that is used, the most used first: `size`, `images`, `lost` (mean share that is cut away),
    `enlarged` (pictures with fewer pixels than needed), `encoded` (twice those that are seen mirrored and not).
    """
    sizing, found = sizing_of(data), defaultdict(lambda: [0, 0.0, 0, 0])
    for material in materials:
        sizes, counts, of_size = _sizes(material.pictures)
        encoded = np.bincount(of_size, number_of(_ways(material, data.flip_p)), len(sizes))
        for size, count, forms in zip(sizes, counts.tolist(), encoded.tolist(), strict=True):
            place = sizing.place(size)
            row = found[place.bucket]
            row[0] += count
            row[1] += count * place.lost()
            row[2] += count * place.enlarges(size)
            row[3] += int(forms)
    rows = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [{"size": list(size), "images": count, "lost": round(lost / count, 4), "enlarged": enlarged,
             "encoded": encoded} for size, (count, lost, enlarged, encoded) in rows]


def _ways(material: Material, flip_p: float) -> np.ndarray:
    """Pictures that are the class too are seen there as the settings say, whatever their folder's chance."""
    twice = material.concept.class_prompt and material.concept.class_from == OWN_PICTURES
    return ways_of(material, flip_p) | (ways_of_chance(flip_p) if twice else 0)


def bucket_lines(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for people."""
    return [
        f"  {row['size'][0]}x{row['size'][1]}: {row['images']} pictures, {row['lost']:.1%} of their pixels cut away"
        + (f", {row['enlarged']} enlarged" if row["enlarged"] else "")
        for row in table
    ]
