"""What a run's pictures come to: which find a place, and the table of sizes."""
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lib_sdtrain.data.concepts import Material
from lib_sdtrain.data.sizes import Misfit, Size, Sizing, sizing_of
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import Event, Notice
from lib_sdtrain.settings.run import DataSettings


def fit_materials(
    materials: Sequence[Material], data: DataSettings, problems: Problems
) -> Iterator[Event]:
    """The materials without the pictures that have no place, returned; a notice for each of those.

    A concept that is left with none is a problem.
    """
    sizing, kept = sizing_of(data), []
    for index, material in enumerate(materials):
        fitting = []
        for picture in material.pictures:
            why = misfit(sizing, picture.size)
            if why:
                yield Notice(text=f"left out: {why}", where=str(picture.path))
            else:
                fitting.append(picture)
        if material.pictures and not fitting:
            problems.add(
                "none of its pictures has a place in the buckets", where=f"data.concepts.{index}.instance_dir",
                fix="choose other buckets, or larger pictures",
            )
        kept.append(material if len(fitting) == len(material.pictures) else replace(material, pictures=tuple(fitting)))
    return kept


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
