"""What a run's pictures come to: which find a place, and the table of sizes."""
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_sdtrain.data.concepts import Group, Material, Picture
from lib_sdtrain.data.groups import hint, weighted
from lib_sdtrain.data.sizes import Misfit, Size, Sizing, sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import Event, Notice
from lib_sdtrain.settings.run import DataSettings


def fit_materials(
    materials: Sequence[Material], roots: Sequence[Path], data: DataSettings, problems: Problems
) -> Generator[Event, None, list[Material]]:
    """The materials, whose pictures lie below `roots`, without the pictures that have no place, weighted.

    Yields a notice for each picture that is left out. A concept that is left with none is a problem.
    """
    sizing, done = sizing_of(data), []
    for index, (material, root) in enumerate(zip(materials, roots, strict=True)):
        where = f"data.concepts.{index}"
        if text := hint(root, material.concept):
            yield Notice(text=text, where=f"{where}.weighting")
        fitting = yield from _fitting(material, sizing)
        if not fitting:
            problems.add(
                "none of its pictures has a place in the buckets", where=f"{where}.instance_dir",
                fix="choose other buckets, or larger pictures",
            )
            continue
        try:
            grouped = weighted(replace(material, pictures=fitting), root, where)
        except UserError as error:
            problems.absorb(error)
            continue
        if grouped.epoch is not None and not grouped.groups:
            problems.add("all of its pictures weigh 0", where=f"{where}.instance_dir", fix="raise a weight")
        done.append(grouped)
    return done


def _fitting(material: Material, sizing: Sizing) -> Generator[Event, None, Sequence[Picture]]:
    fitting = []
    for picture in material.pictures:
        why = misfit(sizing, picture.size)
        if why:
            yield Notice(text=f"left out: {why}", where=str(picture.path))
        else:
            fitting.append(picture)
    return material.pictures if len(fitting) == len(material.pictures) else tuple(fitting)


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
    `enlarged` (pictures with fewer pixels than needed).
    """
    sizing, found = sizing_of(data), defaultdict(lambda: [0, 0.0, 0])
    for material in materials:
        for picture in material.pictures:
            place = sizing.place(picture.size)
            row = found[place.bucket]
            row[0] += 1
            row[1] += place.lost()
            row[2] += place.enlarges(picture.size)
    rows = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [{"size": list(size), "images": count, "lost": round(lost / count, 4), "enlarged": enlarged}
            for size, (count, lost, enlarged) in rows]


def largest_size(materials: Sequence[Material], data: DataSettings) -> Size:
    """The used size with the most pixels."""
    return max((tuple(row["size"]) for row in bucket_table(materials, data)), key=math.prod)


def bucket_lines(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for people."""
    return [
        f"  {row['size'][0]}x{row['size'][1]}: {row['images']} pictures, {row['lost']:.1%} of their pixels cut away"
        + (f", {row['enlarged']} enlarged" if row["enlarged"] else "")
        for row in table
    ]
