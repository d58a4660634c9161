"""A data set as training will use it, to be looked at: what it comes to, and lists of its pictures, page by page."""
from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.data.draws import kept_crops
from lib_sdtrain.data.mirrored import number_of, ways_of
from lib_sdtrain.data.pictures import Size
from lib_sdtrain.data.review import MOST, NEARLY, SAME, identifiers, oddity, twins_of, words_alike
from lib_sdtrain.data.sizes import sizing_of
from lib_sdtrain.events import CancelToken, Event, Notice, Phase, sifted
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.forecast import outline
from lib_sdtrain.train.plan import Plan, make_plan
from lib_sdtrain.train.prompt_pieces import shown_prompts
from lib_sdtrain.train.studio import Studio

ALL, CUT, SMALL, TWINS, BARE, ODD, BUCKET, CONCEPT = "all", "cut", "small", "twins", "bare", "odd", "bucket", "concept"
LISTS = (ALL, CUT, SMALL, TWINS, BARE, ODD)
SHOWN_NOTICES, LONGEST_CAPTION, EVERY = 500, 400, 2000
VISIBLE = 0.005  # a share that is shown as 0 % is not called cut
LATENT_VALUES, LATENT_BYTES = 8, {"fp32": 4.0, "fp16": 2.0}


@dataclass(frozen=True)
class Twins:
    """Two pictures by number, and whether they are the same or nearly so."""

    one: int
    other: int
    kind: str


@dataclass(frozen=True)
class Columns:
    """Facts of all pictures, a place each: number of the bucket in `sizes`, share cut away, three flags."""

    sizes: list[Size]
    bucket: np.ndarray
    lost: np.ndarray
    enlarged: np.ndarray
    bare: np.ndarray
    odd: np.ndarray


class Survey:
    """The pictures of a plan. They are numbered through all concepts, in the order of their folders."""

    def __init__(self, plan: Plan, notices: Sequence[Notice], columns: Columns, twins: Sequence[Twins]) -> None:
        self.plan, self.notices, self.columns, self.twins = plan, notices, columns, twins
        self.sizing = sizing_of(plan.settings.data)
        self.starts = np.cumsum([0, *(len(material.pictures) for material in plan.materials)])
        self._listed = lru_cache(maxsize=8)(self._numbers)
        self._searched = lru_cache(maxsize=2)(self._matching)

    def document(self) -> dict[str, Any]:
        """The dry run's document with prompts in their tokens, what is kept on disk, and how long each list is."""
        data, draws = self.plan.settings.data, draws_of(self.plan)
        return {
            **outline(self.plan, draws), "prompts": shown_prompts(self.plan, draws), "cache_bytes": self.cache_bytes(),
            "lists": {name: len(self._listed(name)) for name in LISTS},
            "twins": {kind: sum(twins.kind == kind for twins in self.twins) for kind in (SAME, NEARLY)},
            "compared": min(MOST, int(self.starts[-1])), "alike": words_alike(identifiers(self.plan.materials)),
            "notices": [{"where": notice.where, "text": notice.text} for notice in self.notices[:SHOWN_NOTICES]],
            "more_notices": max(0, len(self.notices) - SHOWN_NOTICES),
            "random_crop": data.random_crop, "padded": self.sizing.padded, "cached": data.cache_latents,
        }

    def cache_bytes(self) -> int:
        """What the latents of all pictures in all their forms take before compression: mirrored, and crops."""
        data, pixels = self.plan.settings.data, np.array([w * h for w, h in self.columns.sizes], np.int64)
        ways = np.concatenate([number_of(ways_of(material, data.flip_p)) for material in self.plan.materials])
        values = int((pixels[self.columns.bucket] * ways).sum()) // self.plan.family.vae.downscale**2 * LATENT_VALUES
        crops = kept_crops(data) or 1
        return int(values * LATENT_BYTES[data.latent_precision]) * crops

    def page(self, name: str, first: int, count: int, search: str = "") -> dict[str, Any]:
        """`total` and `rows` of a list: one of LISTS, `bucket 512x768` or `concept 0`; empty for an unknown one.

        `search` is a part of names or captions. Twins come two by two, whatever is searched.
        """
        numbers, words = self._listed(name), search.strip().lower()
        if words and name != TWINS:
            numbers = numbers[self._searched(words)[numbers]]
        rows = [self._row(int(number)) for number in numbers[first : first + count]]
        for place, row in enumerate(rows if name == TWINS else (), first):
            twins = self.twins[place // 2]
            row["twin"] = f"{twins.kind} as {self.picture((twins.other, twins.one)[place % 2]).path.name}"
        return {"total": len(numbers), "rows": rows}

    def picture(self, number: int) -> Picture | None:
        """A picture by its number."""
        if not 0 <= number < self.starts[-1]:
            return None
        concept = self._concept(number)
        return self.plan.materials[concept].pictures[number - int(self.starts[concept])]

    def _concept(self, number: int) -> int:
        return int(np.searchsorted(self.starts, number, side="right")) - 1

    def _numbers(self, name: str) -> np.ndarray:
        columns, everyone = self.columns, np.arange(self.starts[-1])
        kind, _, value = name.partition(" ")
        if kind == ALL:
            return everyone
        if kind == CUT:
            order = np.argsort(-columns.lost, kind="stable")
            return order[columns.lost[order] >= VISIBLE]
        if kind == TWINS:
            return np.array([number for twins in self.twins for number in (twins.one, twins.other)], np.int64)
        if kind == BUCKET:
            sizes = {f"{w}x{h}": index for index, (w, h) in enumerate(columns.sizes)}
            return everyone[columns.bucket == sizes.get(value, -1)]
        if kind == CONCEPT and value.isdigit() and int(value) < len(self.plan.materials):
            return everyone[self.starts[int(value)] : self.starts[int(value) + 1]]
        flags = {SMALL: columns.enlarged, BARE: columns.bare, ODD: columns.odd}
        return everyone[flags[kind]] if kind in flags else everyone[:0]

    def _matching(self, words: str) -> np.ndarray:
        found = (words in picture.path.name.lower() or words in (picture.caption or "").lower()
                 for material in self.plan.materials for picture in material.pictures)
        return np.fromiter(found, bool, int(self.starts[-1]))

    def _row(self, number: int) -> dict[str, Any]:
        picture, concept = self.picture(number), self.plan.materials[self._concept(number)].concept
        place = self.sizing.place(picture.size)
        fit = place.fit()
        caption = picture.caption
        return {
            "number": number, "name": picture.path.name, "folder": _below(picture.path.parent, concept.instance_dir),
            "concept": concept.name, "size": list(picture.size), "bucket": list(place.bucket),
            "resize": list(fit.resize), "crop": list(fit.crop), "lost": round(place.lost(), 4),
            "enlarged": place.enlarges(picture.size), "mark": picture.sha256[:16],
            "caption": caption if caption is None else caption[:LONGEST_CAPTION],
            "remark": oddity(caption) if caption is not None else "",
        }


def _below(folder: Path, root: str) -> str:
    """A folder as seen from the concept's own; empty for that one."""
    top = Path(root).expanduser()
    return "" if folder == top or not folder.is_relative_to(top) else folder.relative_to(top).as_posix()


def make_survey(
    settings: RunSettings, outputs: Path, device: str, token: CancelToken, studio: Studio | None = None
) -> Generator[Event, None, Survey]:
    """Read the pictures as a run would, and what there is to say of them. Yields progress; raises `UserError` with all
    mistakes.
    """
    notices: list[Notice] = []

    def overhear(event: Event) -> bool:
        if isinstance(event, Notice):
            notices.append(event)
        return True

    plan = yield from sifted(make_plan(settings, outputs, device, token, anew=False, studio=studio), overhear)
    columns = yield from _columns(plan, token)
    twins, start = [], 0
    for done, material in enumerate(plan.materials, 1):
        token.check()
        twins += _twins(material, start)
        start += len(material.pictures)
        yield Phase(name="comparing pictures", done=done, total=len(plan.materials), unit="concepts")
    return Survey(plan, notices, columns, twins)


def _columns(plan: Plan, token: CancelToken) -> Generator[Event, None, Columns]:
    sizing, sizes, facts = sizing_of(plan.settings.data), {}, []
    total = plan.pictures
    for done, picture in enumerate(_pictures(plan), 1):
        place = sizing.place(picture.size)
        odd = picture.caption is not None and bool(oddity(picture.caption))
        bucket = sizes.setdefault(place.bucket, len(sizes))
        facts.append((bucket, place.lost(), place.enlarges(picture.size), picture.caption is None, odd))
        if done % EVERY == 0 or done == total:
            token.check()
            yield Phase(name="looking at captions", done=done, total=total, unit="pictures")
    rows = np.array(facts, dtype=[("bucket", "i4"), ("lost", "f4"), ("enlarged", "?"), ("bare", "?"), ("odd", "?")])
    return Columns(list(sizes), *(rows[name].copy() for name in rows.dtype.names))


def _pictures(plan: Plan) -> Iterator[Picture]:
    for material in plan.materials:
        yield from material.pictures


def _twins(material: Material, start: int) -> list[Twins]:
    found = twins_of(material.pictures[:MOST])
    return [Twins(start + one, start + other, kind) for kind, pairs in found.items() for one, other in pairs]
