"""Drawing with Pillow in the coordinates of the thing drawn, antialiased by drawing larger and reducing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
SUPERSAMPLING = 3


@dataclass(frozen=True)
class Placement:
    """Where local coordinates (x to the right, y down, about -1 to 1) land on the supersampled picture.

    `x`, `y`, `scale` are in supersampled pixels, `tilt` in degrees anticlockwise; `flip` mirrors x.
    """

    x: float
    y: float
    scale: float
    tilt: float = 0.0
    flip: bool = False

    def points(self, local: list[Point]) -> list[Point]:
        """Local points to supersampled pixels."""
        cos, sin = math.cos(math.radians(-self.tilt)), math.sin(math.radians(-self.tilt))
        side = -1.0 if self.flip else 1.0
        moved = []
        for px, py in local:
            px *= side
            moved.append((self.x + self.scale * (px * cos - py * sin), self.y + self.scale * (px * sin + py * cos)))
        return moved


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> list[Point]:
    """An ellipse as 48 points, turned by `turn` degrees."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    ring = [(rx * math.cos(2 * math.pi * i / 48), ry * math.sin(2 * math.pi * i / 48)) for i in range(48)]
    return [(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in ring]


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> list[Point]:
    """A rectangle, its corners rounded by `radius`."""
    corners = ((right, bottom, 0), (left, bottom, 90), (left, top, 180), (right, top, 270))
    points = []
    for x, y, start in corners:
        cx = x - radius if start in (0, 270) else x + radius
        cy = y - radius if start in (0, 90) else y + radius
        for step in range(7):
            angle = math.radians(start + 15 * step)
            points.append((cx + radius * math.cos(angle), cy + radius * math.sin(angle)))
    return points


def star(cx: float, cy: float, radius: float, points: int = 5, inner: float = 0.45) -> list[Point]:
    """A star with one point up."""
    ring = []
    for i in range(2 * points):
        r = radius if i % 2 == 0 else radius * inner
        angle = math.pi * i / points - math.pi / 2
        ring.append((cx + r * math.cos(angle), cy + r * math.sin(angle)))
    return ring


def ribbon(spine: list[Point], width: float) -> list[Point]:
    """A band of even `width` along `spine`, with round ends: tails and legs."""
    left, right = [], []
    for i, (x, y) in enumerate(spine):
        x0, y0 = spine[max(i - 1, 0)]
        x1, y1 = spine[min(i + 1, len(spine) - 1)]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        nx, ny = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    (ex, ey), (px, py) = spine[-1], spine[-2]
    heading = math.atan2(ey - py, ex - px)
    cap = [
        (ex + width / 2 * math.cos(heading + math.pi / 2 - a), ey + width / 2 * math.sin(heading + math.pi / 2 - a))
        for a in (math.pi * i / 8 for i in range(1, 8))
    ]
    return left + cap + right[::-1]


def vertical_gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    """A picture that goes from `top` to `bottom`."""
    column = Image.new("RGB", (1, 64))
    column.putdata([mix(top, bottom, i / 63) for i in range(64)])
    return column.resize(size, Image.BILINEAR)


def fill(image: Image.Image, place: Placement, shape: list[Point], colour: Colour) -> None:
    """Fill `shape`, given in local coordinates."""
    ImageDraw.Draw(image).polygon(place.points(shape), fill=colour)


def stroke(image: Image.Image, place: Placement, shape: list[Point], colour: Colour, width: float) -> None:
    """Draw the closed outline of `shape`, `width` in local units."""
    points = place.points(shape)
    closed = [*points, points[0], points[1]]
    ImageDraw.Draw(image).line(closed, fill=colour, width=max(1, round(width * place.scale)), joint="curve")


def paste_through(image: Image.Image, layer: Image.Image, place: Placement, shape: list[Point]) -> None:
    """Copy `layer` onto `image` inside `shape`."""
    points = place.points(shape)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    area = (
        max(0, math.floor(min(xs))),
        max(0, math.floor(min(ys))),
        min(image.width, math.ceil(max(xs)) + 1),
        min(image.height, math.ceil(max(ys)) + 1),
    )
    if area[0] >= area[2] or area[1] >= area[3]:
        return
    mask = Image.new("L", (area[2] - area[0], area[3] - area[1]))
    ImageDraw.Draw(mask).polygon([(x - area[0], y - area[1]) for x, y in points], fill=255)
    image.paste(layer.crop(area), area[:2], mask)
