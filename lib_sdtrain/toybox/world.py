"""A scene to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from lib_sdtrain.toybox import backdrops, things
from lib_sdtrain.toybox.canvas import (
    SUPERSAMPLING,
    Colour,
    Placement,
    Point,
    box,
    ellipse,
    fill,
    mix,
    paste_through,
    stroke,
    vertical_gradient,
)
from lib_sdtrain.toybox.scene import Scene, keyed
from lib_sdtrain.toybox.things import Part

SIZE = 128
PAINTS: dict[str, Colour] = {
    "red": (212, 38, 40),
    "orange": (243, 128, 28),
    "yellow": (250, 212, 50),
    "green": (58, 168, 74),
    "blue": (46, 98, 216),
    "purple": (136, 66, 186),
    "pink": (246, 140, 190),
    "white": (246, 246, 248),
}
# What stripes and spots are painted in: darker than a light coat, lighter than a dark one, so that they always show.
SECOND_PAINTS: dict[str, Colour] = {
    "red": (255, 214, 200),
    "orange": (150, 66, 10),
    "yellow": (196, 104, 12),
    "green": (206, 244, 190),
    "blue": (190, 220, 255),
    "purple": (232, 206, 255),
    "pink": (176, 44, 112),
    "white": (110, 116, 136),
}


@dataclass(frozen=True)
class Coat:
    """What the thing is painted with: its colour, and the whole picture covered in it without and with pattern."""

    base: Colour
    plain: Image.Image
    patterned: Image.Image


def _coat(scene: Scene, size: tuple[int, int], place: Placement, rng: Random) -> Coat:
    base = tuple(min(255, max(0, c + rng.randint(-9, 9))) for c in PAINTS[scene.colour])
    plain = Image.new("RGB", size, base)
    if scene.style == "shaded":
        plain = vertical_gradient(size, mix(base, (255, 255, 255), 0.22), mix(base, (20, 10, 40), 0.25))
    patterned = plain.copy()
    for shape in _pattern(scene.pattern, rng.uniform(-0.1, 0.1)):
        fill(patterned, place, shape, SECOND_PAINTS[scene.colour])
    return Coat(base, plain, patterned)


def _pattern(pattern: str, start: float) -> list[list[Point]]:
    """Stripes or spots over the whole thing, in its own coordinates."""
    steps = range(-5, 6)
    if pattern == "striped":
        return [box(start + i * 0.38, -1.5, start + i * 0.38 + 0.17, 1.5) for i in steps]
    if pattern == "spotted":
        shift = (0.0, 0.21)
        return [ellipse(start + 0.42 * i + shift[j % 2], start + 0.36 * j, 0.115, 0.115) for j in steps for i in steps]
    return []


def _draw_part(image: Image.Image, part: Part, scene: Scene, coat: Coat, place: Placement) -> None:
    if part.colour is not None:
        fill(image, place, part.shape, part.colour)
    elif part.shade:
        fill(image, place, part.shape, mix(coat.base, things.INK, part.shade))
    else:
        paste_through(image, coat.patterned if part.patterned else coat.plain, place, part.shape)
    if part.edge and scene.style == "outlined":
        stroke(image, place, part.shape, things.INK, 0.075)
    elif part.edge and scene.style == "shaded":
        stroke(image, place, part.shape, mix(coat.base, things.INK, 0.55), 0.05)


def _shadow(image: Image.Image, place: Placement, foot: float) -> None:
    """Darken the ground under the thing."""
    ground = Image.eval(image, lambda value: value * 3 // 4)
    paste_through(image, ground, Placement(place.x, place.y, place.scale), ellipse(0, foot, 0.85, 0.14))


def render(scene: Scene, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Draw `scene` at `size` (width, height in pixels) in RGB; the same bytes for the same scene and Pillow."""
    large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    rng = keyed("detail", scene.detail)
    image = backdrops.paint(scene.background, large, rng)
    place = Placement(large[0] * scene.x, large[1] * scene.y, min(large) * scene.scale, scene.tilt, scene.flip)
    thing = things.build(scene.kind, rng)
    coat = _coat(scene, large, place, rng)
    _shadow(image, place, thing.foot)
    for part in thing.parts + (things.mark_parts(thing) if scene.marked else []):
        _draw_part(image, part, scene, coat, place)
    return image.reduce(SUPERSAMPLING)
