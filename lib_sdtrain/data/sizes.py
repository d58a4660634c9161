"""Which size every picture is trained at: one for all, or the bucket that suits its shape, by named schemes.

Sources of the schemes: naifu-diffusion (NovelAI's aspect ratio bucketing), kohya-ss/sd-scripts, EveryDream1 and
bigASP's training code; formulas and tables, and `least_waste`, which is our own. Sizes are (width, height).
"""
from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from lib_sdtrain.data.arb import Arb, default_arb, naifu_aspects, parse_arb
from lib_sdtrain.data.everydream_sizes import EVERYDREAM
from lib_sdtrain.data.pictures import Fit, Size, pad
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.run import DataSettings

NONE, NAIFU, KOHYA, EVERYDREAM_NAME, SDXL = "none", "naifu", "kohya", "everydream", "sdxl"
LEAVE_OUT = "leave_out"
SIDE_LIMITS = (64, 8192)
_SIZE = re.compile(r"\s*(\d+)\s*(?:[xX*]\s*(\d+)\s*)?$")
_KEPT_PLACES = 65536


@dataclass(frozen=True)
class Place:
    """Where pictures of one size go: resized to `resize`, then cut (or padded) to `bucket`."""

    bucket: Size
    resize: Size

    def fit(self, where: tuple[float, float] = (0.5, 0.5)) -> Fit:
        """The crop at the fraction `where` of the room, 0.5 being the middle; padding is always centred."""
        crop = []
        for have, want, part in zip(self.resize, self.bucket, where, strict=True):
            crop.append(int((have - want) * part) if have >= want else -((want - have) // 2))
        return Fit(self.resize, (crop[0], crop[1], *self.bucket))

    def enlarges(self, size: Size) -> bool:
        """Whether a picture of `size` has fewer pixels than are needed."""
        return self.resize[0] > size[0] or self.resize[1] > size[1]

    def lost(self) -> float:
        """The share of the resized picture that is cut away, 0 to 1."""
        kept = math.prod(min(have, want) for have, want in zip(self.resize, self.bucket, strict=True))
        return 1 - kept / math.prod(self.resize)


class Misfit(Exception):  # noqa: N818 - reads as what it is
    """A picture of this size has no place; the message says why."""


class Scheme(Protocol):
    """How sizes become buckets. `sizes` lists the buckets in the scheme's own order, empty where any is possible."""

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The buckets."""
        ...

    def place(self, size: Size) -> Place:
        """The place of a picture. Raises `Misfit`."""
        ...


def cover_size(size: Size, bucket: Size) -> Size:
    """The size that fills `bucket` keeping the aspect, rounded half up: int(side x scale + 0.5)."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    return max(bucket[0], int(size[0] * scale + 0.5)), max(bucket[1], int(size[1] * scale + 0.5))


@dataclass(frozen=True)
class OneSize:
    """Every picture at the resolution."""

    target: Size

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The one."""
        return (self.target,)

    def place(self, size: Size) -> Place:
        """Fill the target; halves are rounded to even numbers."""
        scale = max(self.target[0] / size[0], self.target[1] / size[1])
        return Place(self.target, tuple(max(t, round(s * scale)) for t, s in zip(self.target, size, strict=True)))


@dataclass(frozen=True)
class Table:
    """A list of buckets; a picture goes to the one whose width/height differs least from its own, the first of equals.

    With `limit`, a difference of that much or more is a misfit. `aspects` are the buckets' where a scheme has its own.
    """

    sizes: tuple[Size, ...]
    aspects: tuple[float, ...] = ()
    limit: float | None = None
    exact_first: bool = False

    def place(self, size: Size) -> Place:
        """The nearest bucket by the absolute difference of width/height. Raises `Misfit`."""
        if self.exact_first and size in self.sizes:
            return Place(size, size)
        aspects = self.aspects or tuple(w / h for w, h in self.sizes)
        aspect = size[0] / size[1]
        errors = [abs(own - aspect) for own in aspects]
        best = min(range(len(errors)), key=errors.__getitem__)
        if self.limit is not None and not errors[best] < self.limit:
            raise Misfit(f"{size[0]}x{size[1]} is too far from the shape of every bucket (max_ar_error)")
        return Place(self.sizes[best], cover_size(size, self.sizes[best]))


@dataclass(frozen=True)
class LeastWaste:
    """All sizes in steps that use at least three quarters of the pixel budget; a picture takes the one that cuts away
    least of it, of equals the largest.
    """

    sizes: tuple[Size, ...]

    def place(self, size: Size) -> Place:
        """The bucket whose aspect is nearest in proportion."""
        aspect = size[0] / size[1]

        def kept(bucket: Size) -> tuple[float, int]:
            own = bucket[0] / bucket[1]
            return min(own / aspect, aspect / own), bucket[0] * bucket[1]

        best = max(self.sizes, key=kept)
        return Place(best, cover_size(size, best))


@dataclass(frozen=True)
class NoUpscale:
    """kohya's `bucket_no_upscale`: pictures over the budget are shrunk to it, the others keep their size.

    Of the two ways to round to the step the one with the smaller error of the aspect counts; what is over a
    multiple of the step is cut away.
    """

    budget: int
    step: int
    sizes: tuple[Size, ...] = ()

    def place(self, size: Size) -> Place:
        """The size rounded down to the step. Raises `Misfit` for pictures smaller than one step."""
        resize = self._shrunk(size) if size[0] * size[1] > self.budget else size
        bucket = resize[0] - resize[0] % self.step, resize[1] - resize[1] % self.step
        if not all(bucket):
            raise Misfit(f"{size[0]}x{size[1]} is smaller than one step of {self.step} pixels")
        return Place(bucket, resize)

    def _shrunk(self, size: Size) -> Size:
        aspect = size[0] / size[1]
        width = math.sqrt(self.budget * aspect)
        by_width, by_height = self._stepped(width), self._stepped(self.budget / width)
        wide = by_width, int(by_width / aspect + 0.5)
        high = int(by_height * aspect + 0.5), by_height
        errors = [abs(by_width / (self._stepped(by_width / aspect) or math.inf) - aspect),
                  abs(self._stepped(by_height * aspect) / (by_height or math.inf) - aspect)]
        return wide if errors[0] < errors[1] else high

    def _stepped(self, value: float) -> int:
        whole = int(value + 0.5)
        return whole - whole % self.step


def kohya_sizes(budget: int, shortest: int, longest: int, step: int) -> tuple[Size, ...]:
    """kohya's buckets: the square, and for each width the largest height within the budget, with its transpose."""
    side = math.isqrt(budget) // step * step
    found = {(side, side)} if side else set()
    for width in range(shortest, longest + 1, step):
        height = min(longest, budget // width // step * step)
        if height >= shortest:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def sdxl_sizes() -> tuple[Size, ...]:
    """The 26 sizes of bigASP: sides 512 to 2048 in steps of 64, 946,176 to 1,048,576 pixels, aspect 0.5 to 3."""
    sides = range(512, 2048 + 1, 64)
    return tuple((w, h) for w in sides for h in sides if 946_176 <= w * h <= 1_048_576 and 0.5 <= w / h <= 3.0)


def least_waste_sizes(budget: int, shortest: int, longest: int, step: int) -> tuple[Size, ...]:
    """Every size in steps that uses at least three quarters of the budget."""
    sides = range(shortest, longest + 1, step)
    return tuple((w, h) for w in sides for h in sides if budget * 3 <= w * h * 4 <= budget * 4)


@dataclass
class Sizing:
    """The sizes of a run: a scheme, and what happens to pictures that are padded or too small."""

    scheme: Scheme
    padded: bool = False
    leave_out_small: bool = False
    _places: dict[Size, Place | str] = field(default_factory=dict, repr=False)

    def place(self, size: Size) -> Place:
        """The place of a picture of this size. Raises `Misfit`."""
        if size not in self._places:
            if len(self._places) >= _KEPT_PLACES:
                self._places.clear()
            self._places[size] = self._find(size)
        found = self._places[size]
        if isinstance(found, str):
            raise Misfit(found)
        return found

    def _find(self, size: Size) -> Place | str:
        try:
            place = self.scheme.place(size)
        except Misfit as misfit:
            return str(misfit)
        if self.leave_out_small and place.enlarges(size):
            return f"{size[0]}x{size[1]} is smaller than its bucket {place.bucket[0]}x{place.bucket[1]}"
        return self.place_in(size, place.bucket) if self.padded else place

    def place_in(self, size: Size, bucket: Size) -> Place:
        """The place in a given bucket, whichever would be the picture's own."""
        if self.padded:
            return Place(bucket, pad(size, bucket).resize)
        return Place(bucket, cover_size(size, bucket))


def parse_resolution(text: str) -> Size:
    """(width, height) from `512` or `768x512`. Raises `UserError`."""
    match = _SIZE.match(text)
    where = "data.resolution"
    if not match:
        raise UserError(f"{text!r} is not a size", where=where, fix="write 512, or 768x512 (width x height)")
    width = int(match[1])
    height = int(match[2] or width)
    for side in (width, height):
        if side % 8 or not SIDE_LIMITS[0] <= side <= SIDE_LIMITS[1]:
            low, high = SIDE_LIMITS
            what = f"{side} is not a multiple of 8 from {low} to {high}"
            raise UserError(what, where=where, fix=f"try {_near(side)}")
    return width, height


def _near(side: int) -> int:
    return min(max(round(side / 64) * 64, SIDE_LIMITS[0]), SIDE_LIMITS[1])


def sizing_of(data: DataSettings) -> Sizing:
    """The sizes that the settings ask for. Raises `UserError` with every mistake in them."""
    scheme = _scheme(bucketing_of(data), data, parse_resolution(data.resolution))
    small = LEAVE_OUT if data.too_small == "auto" and bucketing_of(data) == SDXL else data.too_small
    return Sizing(scheme, data.resize == "pad", small == LEAVE_OUT)


def bucketing_of(data: DataSettings) -> str:
    """The scheme's name: an `arb` block that is on means naifu. Raises `UserError` when two schemes are asked for."""
    arb = bool(data.arb) and data.arb.get("enabled", True) is True
    if arb and data.bucketing not in (NONE, NAIFU):
        raise UserError(
            f"an arb block belongs to naifu's buckets, not to {data.bucketing}", where="data.arb",
            fix="leave one of data.arb and data.bucketing out",
        )
    return NAIFU if arb else data.bucketing


@lru_cache(maxsize=64)
def _table(sizes: tuple[Size, ...], exact_first: bool = False) -> Table:
    return Table(sizes, exact_first=exact_first)


def _scheme(name: str, data: DataSettings, resolution: Size) -> Scheme:
    if name == NONE:
        return OneSize(resolution)
    if name == NAIFU:
        arb = parse_arb(data.arb) if data.arb.keys() - {"enabled", "debug"} else default_arb(_square(resolution, name))
        return _naifu(arb)
    if name == SDXL:
        return _table(sdxl_sizes())
    if name == EVERYDREAM_NAME:
        return _table(_everydream(_square(resolution, name)))
    return _stepped(name, data, resolution)


def _square(resolution: Size, name: str) -> int:
    if resolution[0] != resolution[1]:
        raise UserError(
            f"{name}'s buckets need one number, not {resolution[0]}x{resolution[1]}", where="data.resolution",
            fix="for instance 512",
        )
    return resolution[0]


def _naifu(arb: Arb) -> Table:
    aspects = naifu_aspects(arb)
    if not aspects:
        raise UserError("no bucket is within these limits", where="data.arb", fix="lower min_dim or raise max_size")
    return Table(tuple(aspects), tuple(aspects.values()), arb.max_ar_error)


def _everydream(resolution: int) -> tuple[Size, ...]:
    if resolution not in EVERYDREAM:
        known = ", ".join(map(str, EVERYDREAM))
        raise UserError(
            f"EveryDream1 has no buckets for {resolution}", where="data.resolution", fix=f"it has them for {known}"
        )
    return EVERYDREAM[resolution]


def _stepped(name: str, data: DataSettings, resolution: Size) -> Scheme:
    step, budget = data.bucket_reso_steps, resolution[0] * resolution[1]
    shortest, longest = bucket_limits(data, resolution)
    _check_limits(shortest, longest, step)
    if name == KOHYA and data.bucket_no_upscale:
        return NoUpscale(budget, step)
    make = kohya_sizes if name == KOHYA else least_waste_sizes
    sizes: Sequence[Size] = make(budget, shortest, longest, step)
    if not sizes:
        raise UserError(
            f"no bucket of {shortest} to {longest} in steps of {step} has at most {budget} pixels",
            where="data.min_bucket_reso", fix="lower it, or raise data.resolution",
        )
    return _table(tuple(sizes), exact_first=True) if name == KOHYA else LeastWaste(tuple(sizes))


def bucket_limits(data: DataSettings, resolution: Size) -> Size:
    """Shortest and longest side of a bucket: as set, else 256 (half of a small resolution) and twice the longer."""
    step = data.bucket_reso_steps
    shortest = data.min_bucket_reso or min(256, max(step, min(resolution) // 2 // step * step))
    return shortest, data.max_bucket_reso or 2 * max(resolution)


def _check_limits(shortest: int, longest: int, step: int) -> None:
    problems = Problems()
    if step % 8:
        problems.add(f"{step} is not a multiple of 8", where="data.bucket_reso_steps", fix="64 is usual")
    elif shortest % step:
        problems.add(f"{shortest} is not a multiple of {step}", where="data.min_bucket_reso", fix="256 is usual")
    if longest < shortest:
        problems.add(f"{longest} is less than the shortest side, {shortest}", where="data.max_bucket_reso")
    problems.raise_if_any()
