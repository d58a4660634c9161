"""The four backgrounds: broad, quiet shapes that leave the thing in front easy to read."""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageDraw

from lib_sdtrain.toybox.canvas import Placement, fill, star, vertical_gradient

HORIZON = 0.62


def _ridge(size: tuple[int, int], level: float, height: float, phase: float) -> list[tuple[float, float]]:
    """A wavy line across the picture at `level` (fraction of the height), closed along the bottom edge."""
    width, tall = size
    top = [
        (
            width * i / 32,
            tall * (level + height * math.sin(phase + i * 0.22) + height * 0.5 * math.sin(phase * 2 + i * 0.41)),
        )
        for i in range(33)
    ]
    return [*top, (width, tall), (0, tall)]


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _beach(size: tuple[int, int], rng: Random) -> Image.Image:
    width, tall = size
    unit = min(size)
    image = vertical_gradient(size, (120, 200, 245), (214, 240, 250))
    draw = ImageDraw.Draw(image)
    _disc(draw, width * rng.choice((0.16, 0.84)), tall * rng.uniform(0.12, 0.2), unit * 0.09, (255, 236, 130))
    draw.rectangle((0, tall * 0.50, width, tall), fill=(38, 150, 190))
    draw.polygon(_ridge(size, 0.665, 0.012, rng.uniform(0, 6)), fill=(205, 240, 245))
    draw.polygon(_ridge(size, 0.69, 0.012, rng.uniform(0, 6)), fill=(243, 218, 160))
    return image


def _forest(size: tuple[int, int], rng: Random) -> Image.Image:
    width, tall = size
    unit = min(size)
    image = vertical_gradient(size, (196, 224, 178), (150, 196, 140))
    draw = ImageDraw.Draw(image)
    count = max(4, round(5 * width / unit))
    for i in range(count):
        x = width * (i + rng.uniform(0.25, 0.75)) / count
        top, half = tall * rng.uniform(0.04, 0.22), unit * rng.uniform(0.12, 0.17)
        draw.rectangle((x - unit * 0.02, tall * 0.5, x + unit * 0.02, tall * 0.75), fill=(96, 66, 46))
        draw.polygon([(x, top), (x - half, tall * 0.60), (x + half, tall * 0.60)], fill=(44, 104, 70))
    draw.polygon(_ridge(size, 0.70, 0.02, rng.uniform(0, 6)), fill=(92, 130, 62))
    return image


def _snow(size: tuple[int, int], rng: Random) -> Image.Image:
    width, tall = size
    unit = min(size)
    image = vertical_gradient(size, (160, 178, 200), (206, 218, 230))
    draw = ImageDraw.Draw(image)
    peak = width * rng.uniform(0.2, 0.8)
    draw.polygon(
        [(peak - unit * 0.55, tall * 0.72), (peak, tall * 0.14), (peak + unit * 0.55, tall * 0.72)],
        fill=(122, 142, 172),
    )
    draw.polygon(
        [(peak - unit * 0.165, tall * 0.314), (peak, tall * 0.14), (peak + unit * 0.165, tall * 0.314)],
        fill=(250, 252, 255),
    )
    draw.polygon(_ridge(size, 0.64, 0.03, rng.uniform(0, 6)), fill=(228, 236, 246))
    draw.polygon(_ridge(size, 0.76, 0.02, rng.uniform(0, 6)), fill=(250, 252, 255))
    return image


def _night(size: tuple[int, int], rng: Random) -> Image.Image:
    width, tall = size
    unit = min(size)
    image = vertical_gradient(size, (14, 18, 52), (56, 48, 104))
    draw = ImageDraw.Draw(image)
    side = rng.choice((0.17, 0.83))
    _disc(draw, width * side, tall * 0.16, unit * 0.085, (250, 246, 214))
    for i in range(max(4, round(4 * width / unit))):
        x = (1.0 - side) * width + unit * rng.uniform(-0.14, 0.14) if i < 2 else width * rng.uniform(0.05, 0.95)
        fill(image, Placement(x, tall * rng.uniform(0.05, 0.42), unit * 0.032), star(0, 0, 1, 4, 0.4), (255, 244, 190))
    draw.polygon(_ridge(size, 0.72, 0.03, rng.uniform(0, 6)), fill=(26, 30, 56))
    return image


_PAINTERS = {"beach": _beach, "forest": _forest, "snow": _snow, "night": _night}


def paint(background: str, size: tuple[int, int], rng: Random) -> Image.Image:
    """The background alone, `size` (width, height) in pixels, RGB."""
    return _PAINTERS[background](size, rng)
