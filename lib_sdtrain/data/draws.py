"""Which picture sample n of a run sees, and how: a pure function of the seed and n.

Concepts, and the groups of pictures within them, are interleaved by their weights with a low-discrepancy rule, so
that after any number of samples each one's count is within one of its share. Within a group every picture is seen
once before any is seen again, in an order shuffled anew each time round. With buckets, samples wait until there are
enough of their size for a batch (`batching.py`).
"""
from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as counting
from typing import NamedTuple

from lib_sdtrain.data.batching import batched
from lib_sdtrain.data.bigasp import make_prompt, read_aliases
from lib_sdtrain.data.captions import dropped_caption, dropped_captions, replace_words, split_tags, vary_caption
from lib_sdtrain.data.catalogue import size_at, sizes_of
from lib_sdtrain.data.concepts import Group, Material, Picture, prompt_of
from lib_sdtrain.data.interleave import Replayed, fair_order
from lib_sdtrain.data.mirrored import FLIPS, ways_of, ways_of_chance
from lib_sdtrain.data.nai import nai_caption, tags_of
from lib_sdtrain.data.pictures import Fit
from lib_sdtrain.data.randomness import python_random
from lib_sdtrain.data.rounds import Rounds
from lib_sdtrain.data.sizes import Misfit, Place, Size, sizing_of
from lib_sdtrain.settings.run import DataSettings

NO_GENERATOR, BIGASP, NAI = "none", "bigasp", "nai"
MIDDLE = (0.5, 0.5)


@dataclass(frozen=True)
class Draw:
    """One sample: the picture, its words, mirrored or not, and how it is cut to size.

    `crop` are fractions of the room, `fit` the resize and crop in pixels. Its loss counts `loss_weight` times.
    """

    index: int
    picture: Picture
    prompt: str
    flip: bool
    crop: tuple[float, float]
    fit: Fit
    is_class: bool = False
    loss_weight: float = 1.0

    @property
    def target(self) -> Size:
        """The size that is trained, (w, h)."""
        return self.fit.crop[2:]


class _Slot(NamedTuple):
    """Who has a turn: concept, group and picture by number; `turn` counts the concept's own."""

    concept: int
    turn: int
    group: int
    picture: int


class _Turns:
    """The turns of one concept's pictures, by group."""

    def __init__(self, number: int, material: Material, seed: int) -> None:
        self.groups = material.groups
        weights = [group.weight for group in self.groups]
        self._order = Replayed(lambda: _numbered(fair_order(weights))) if len(weights) > 1 else None
        self._rounds = [
            Rounds(len(group.members), seed, f"instance {number}" + (f" group {group.name}" if self._order else ""),
                   group.multipliers) for group in self.groups
        ] if self.groups else [Rounds(len(material.pictures), seed, f"instance {number}")]  # fmt: skip

    def at(self, turn: int) -> tuple[int, int]:
        """(group, picture) of a turn; group 0 where there are none."""
        group, own = self._order[turn] if self._order else (0, turn)
        place = self._rounds[group].picture(own)
        return group, self.groups[group].members[place] if self.groups else place


def _numbered(order: Iterator[int]) -> Iterator[tuple[int, int]]:
    """(who, its how manieth turn)."""
    counts: dict[int, int] = {}
    for who in order:
        yield who, counts.get(who, 0)
        counts[who] = counts.get(who, 0) + 1


def kept_crops(data: DataSettings) -> int:
    """How many crops of each picture are kept, 0 where they are not drawn or not kept."""
    return (data.cache_crops or 0) if data.random_crop else 0


class Draws:
    """All samples of a run, in order; `at(n)` may be asked for any n (cheapest going upwards).

    Samples k x batch_size and the following batch_size - 1 have one size.
    """

    def __init__(
        self, materials: Sequence[Material], data: DataSettings, seed: int, batch_size: int = 1, replace_from: int = 0,
        refresh_every: int = 0,
    ) -> None:  # fmt: skip
        """`replace_from` is the sample from which on words are replaced (data.replace_words); the crops that are kept
        are others after each `refresh_every` samples.
        """
        self.materials, self.data, self.seed, self.replace_from = list(materials), data, seed, replace_from
        self.refresh_every = refresh_every
        self.aliases = read_aliases(data.tag_aliases, "data.tag_aliases") if data.tag_aliases else {}
        self.sizing = sizing_of(data)
        self._turns = [_Turns(number, material, seed) for number, material in enumerate(materials)]
        weights = [material.concept.weight for material in materials]
        self._concepts = Replayed(lambda: _numbered(fair_order(weights))) if len(weights) > 1 else None
        self._classes: dict[Hashable, tuple[Rounds, Sequence[int]]] = {}
        self.bucketed = len(self.sizing.scheme.sizes) != 1
        waits = batch_size > 1 and (self.bucketed or any(g.batch_id for m in materials for g in m.groups))
        order = (lambda: batched(self._drawn, self._bucket, batch_size)) if waits else self._in_order
        counted = self.bucketed and any(material.class_pictures for material in self.materials)
        self._slots = Replayed(lambda: self._with_class_turns(order(), counted)) if waits or counted else None
        self._batch = batch_size if waits else 1

    def batch_start(self, index: int) -> int:
        """The first sample from `index` on with which a batch begins: a run may go on with another batch size."""
        return -(-index // self._batch) * self._batch

    def at(self, index: int) -> Draw:
        """The instance sample number `index`."""
        slot, _ = self._slot(index)
        material = self.materials[slot.concept]
        picture = material.pictures[slot.picture]
        group = material.groups[slot.group] if material.groups else Group()
        return self._draw(index, picture, ("instance", slot.concept), group, self.sizing.place(picture.size).bucket)

    def class_at(self, index: int) -> Draw | None:
        """The class sample that goes with instance sample `index`, at its size; None when its concept has no class.

        With buckets it is a picture of the same bucket, where there is none of the bucket whose shape is nearest.
        """
        slot, turn = self._slot(index)
        material = self.materials[slot.concept]
        if not material.class_pictures:
            return None
        target = self._bucket_size(slot)
        rounds, members = self._class_rounds(slot.concept, target)
        picture = material.class_pictures[members[rounds.picture(turn)]]
        return self._draw(index, picture, ("class", slot.concept), Group(), target)

    def refreshed(self, index: int) -> int:
        """How many times kept crops were replaced by others before a sample."""
        return index // self.refresh_every if self.refresh_every else 0

    def all_forms(self, refreshed: int = 0) -> Iterator[Draw]:
        """Every picture in every way in which it is trained after so many refreshments of its crops, without words."""
        of_class = FLIPS[ways_of_chance(self.data.flip_p)]
        for concept, material in enumerate(self.materials):
            sizes = set()
            ways = ways_of(material, self.data.flip_p).tobytes()
            for picture, own in zip(material.pictures, ways, strict=True):
                bucket = self.sizing.place(picture.size).bucket
                sizes.add(bucket)
                yield from self._forms(picture, bucket, FLIPS[own], self._kept(refreshed))
            for bucket in sorted(sizes) if material.class_pictures else ():
                for number in self._class_rounds(concept, bucket)[1]:
                    yield from self._forms(
                        material.class_pictures[number], bucket, of_class, self._kept(refreshed), is_class=True
                    )

    def all_words(self) -> Iterator[str] | None:
        """Every prompt that training may see, some more than once; None where captions vary from sample to sample."""
        data, groups = self.data, [group for material in self.materials for group in material.groups]
        varied = data.shuffle_caption or data.tag_dropout_rate or data.enable_wildcard or data.underscores == "random"
        if varied or data.caption_generator != NO_GENERATOR or any(group.shuffle for group in groups):
            return None
        return self._all_words(replace(data, caption_dropout_rate=0.0), groups)

    def _all_words(self, data: DataSettings, groups: Sequence[Group]) -> Iterator[str]:
        rng = python_random(self.seed, "no chance", 0)
        if self.data.caption_dropout_rate or any(group.caption_dropout for group in groups):
            yield from dropped_captions(data.caption_dropout_mode)
        for material in self.materials:
            sides = ((material.pictures, material.concept.instance_prompt),
                     (material.class_pictures, material.concept.class_prompt))
            for pictures, prompt in sides:
                for picture in pictures:
                    said = vary_caption(prompt_of(picture.caption, prompt, picture), data, rng)
                    yield said
                    if data.replace_words:
                        yield replace_words(said, data.replace_words)

    def _kept(self, refreshed: int) -> range:
        """The numbers of each picture's crops that are kept, none where they are not drawn or not kept."""
        count = kept_crops(self.data)
        return range(refreshed * count, (refreshed + 1) * count)

    def _forms(
        self, picture: Picture, bucket: Size, flips: Sequence[bool], kept: range, is_class: bool = False
    ) -> Iterator[Draw]:
        crops = [self._kept_crop(picture, number) for number in kept] or [MIDDLE]
        place = self._place(picture, bucket)
        yield from (Draw(0, picture, "", flip, crop, place.fit(crop), is_class) for crop in crops for flip in flips)

    def _slot(self, index: int) -> tuple[_Slot, int]:
        """The slot of a sample and the turn of its class sample."""
        if self._slots is not None:
            return self._slots[index]
        slot = self._drawn(index)
        return slot, slot.turn

    def _in_order(self) -> Iterator[_Slot]:
        return map(self._drawn, counting())

    def _drawn(self, index: int) -> _Slot:
        concept, turn = self._concepts[index] if self._concepts else (0, index)
        return _Slot(concept, turn, *self._turns[concept].at(turn))

    def _bucket_size(self, slot: _Slot) -> Size:
        return self.sizing.place(size_at(self.materials[slot.concept].pictures, slot.picture)).bucket

    def _bucket(self, slot: _Slot) -> Hashable:
        groups = self.materials[slot.concept].groups
        return self._bucket_size(slot), groups[slot.group].batch_id if groups else ""

    def _with_class_turns(self, slots: Iterator[_Slot], counted: bool) -> Iterator[tuple[_Slot, int]]:
        """Each slot with the number of its class sample, where `counted` among those of the same concept and size."""
        counts: dict[Hashable, int] = {}
        for slot in slots:
            if not counted:
                yield slot, slot.turn
                continue
            place = slot.concept, self._bucket_size(slot)
            yield slot, counts.get(place, 0)
            counts[place] = counts.get(place, 0) + 1

    def _class_rounds(self, concept: int, target: Size) -> tuple[Rounds, Sequence[int]]:
        found = self._classes.get((concept, target))
        if found is None:
            pictures = self.materials[concept].class_pictures
            members = self.class_members(pictures, target)
            name = f"class {concept}" + (f" {target[0]}x{target[1]}" if self.bucketed else "")
            found = self._classes[concept, target] = Rounds(len(members), self.seed, name), members
        return found

    def class_members(self, pictures: Sequence[Picture], target: Size) -> Sequence[int]:
        """Numbers of the class pictures that go with a bucket."""
        if not self.bucketed:
            return range(len(pictures))
        own = [self._nearest_bucket((int(width), int(height))) for width, height in sizes_of(pictures)]
        aspect = target[0] / target[1]

        def distance(size: Size) -> float:
            return max(size[0] / size[1] / aspect, aspect * size[1] / size[0])

        chosen = target if target in own else min(sorted(set(own)), key=distance)
        return [number for number, size in enumerate(own) if size == chosen]

    def _nearest_bucket(self, size: Size) -> Size:
        try:
            return self.sizing.place(size).bucket
        except Misfit:
            return size

    def _place(self, picture: Picture, bucket: Size) -> Place:
        own = self._nearest_bucket(picture.size)
        return self.sizing.place(picture.size) if own == bucket else self.sizing.place_in(picture.size, bucket)

    def _draw(self, index: int, picture: Picture, role: tuple[str, int], group: Group, bucket: Size) -> Draw:
        purpose, data = f"{role[0]} {role[1]}", self.data
        concept = self.materials[role[1]].concept
        prompt = concept.class_prompt if role[0] == "class" else concept.instance_prompt
        where = self._crop(index, picture, purpose)
        flip = python_random(self.seed, f"flip {purpose}", index).random() < group.flip_chance(data.flip_p)
        words = self._words(index, picture, prompt, _own(data, group), purpose)
        fit = self._place(picture, bucket).fit(where)
        return Draw(index, picture, words, flip, where, fit, role[0] == "class", group.loss_scale)

    def _crop(self, index: int, picture: Picture, purpose: str) -> tuple[float, float]:
        """Where this sample is cropped: anywhere, or at one of the picture's `cache_crops` places."""
        if not self.data.random_crop:
            return MIDDLE
        rng = python_random(self.seed, f"crop {purpose}", index)
        if self.data.cache_crops is None:
            return rng.random(), rng.random()
        return self._kept_crop(picture, self._kept(self.refreshed(index))[rng.randrange(self.data.cache_crops)])

    def _kept_crop(self, picture: Picture, number: int) -> tuple[float, float]:
        rng = python_random(self.seed, f"kept crop {picture.sha256}", number)
        return rng.random(), rng.random()

    def _words(self, index: int, picture: Picture, prompt: str, data: DataSettings, purpose: str) -> str:
        rng = python_random(self.seed, f"caption {purpose}", index)
        said = prompt_of(picture.caption, prompt, picture)
        if data.caption_generator == NO_GENERATOR:
            said = vary_caption(said, data, rng)
        elif data.caption_dropout_rate and rng.random() < data.caption_dropout_rate:
            said = dropped_caption(data.caption_dropout_mode, rng)
        else:
            # a prompt that stands for captions has words, no tags
            of_words = data.caption_generator == NAI and picture.caption is None and "[" not in prompt
            said = said if purpose.startswith("class") or of_words else self._generated(said, picture, data, rng)
        return replace_words(said, data.replace_words) if index >= self.replace_from else said

    def _generated(self, said: str, picture: Picture, data: DataSettings, rng: random.Random) -> str:
        if data.caption_generator == NAI:
            tags = tags_of(said, data.caption_separator)
            return nai_caption(tags, data.caption_tags_min, data.caption_tags_max, rng)
        score = picture.column("score")
        number = None if score in (None, "") else int(float(score))
        tags = split_tags(said, data.caption_separator)
        return make_prompt(tags, number, rng, data.important_tags, self.aliases)


def _own(data: DataSettings, group: Group) -> DataSettings:
    """The settings as a group overrides them."""
    if group.caption_dropout is not None:
        data = replace(data, caption_dropout_rate=group.caption_dropout)
    return data if group.shuffle is None else replace(data, shuffle_caption=group.shuffle)
