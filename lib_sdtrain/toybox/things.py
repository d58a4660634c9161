"""The six kinds of thing, as lists of parts in local coordinates (x right, y down, the thing within about ±1).

Every kind looks to the right; `Placement.flip` turns it. A part is either coat (takes the thing's colour and
pattern) or has a colour of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lib_sdtrain.toybox.canvas import Colour, Point, box, ellipse, mix, ribbon, star

INK: Colour = (45, 38, 48)
CREAM: Colour = (252, 240, 216)
STAR_COLOUR: Colour = (255, 255, 255)
COLLAR_COLOUR: Colour = (255, 214, 0)
STAR_EDGE: Colour = (30, 30, 60)


@dataclass(frozen=True)
class Part:
    """A closed shape. `colour` None: the coat; else a fixed colour. `edge`: whether it gets an outline."""

    shape: list[Point]
    colour: Colour | None = None
    shade: float = 0.0
    patterned: bool = True
    edge: bool = True


@dataclass(frozen=True)
class Thing:
    """Parts from back to front; the places of the subject's marks (star: x, y, radius; collar: a shape); its foot."""

    parts: list[Part]
    star: tuple[float, float, float]
    collar: list[Point]
    foot: float = 1.0


def _eye(x: float, y: float, radius: float) -> list[Part]:
    return [
        Part(ellipse(x, y, radius, radius * 1.1), (255, 255, 255), edge=False),
        Part(ellipse(x + radius * 0.25, y + radius * 0.1, radius * 0.62, radius * 0.72), INK, edge=False),
    ]


def _cat(rng: Random) -> Thing:
    ear, lean = rng.uniform(0.36, 0.46), rng.uniform(-0.05, 0.08)
    lift = rng.uniform(0.0, 0.7)
    tail = [(-0.30 - 0.50 * math.sin(t * 1.9), 0.78 - (0.35 + lift) * t**1.6) for t in (i / 10 for i in range(11))]
    hx, hy = 0.12 + lean, -0.42
    parts = [
        Part(ribbon(tail, 0.22)),
        Part([(hx - 0.46, hy - 0.10), (hx - 0.40, hy - 0.25 - ear), (hx - 0.05, hy - 0.36)]),
        Part([(hx + 0.05, hy - 0.36), (hx + 0.40, hy - 0.25 - ear), (hx + 0.46, hy - 0.10)]),
        Part(ellipse(0.0, 0.42, 0.54, 0.60)),
        Part(ellipse(-0.20, 0.93, 0.22, 0.12), patterned=False, shade=0.10),
        Part(ellipse(0.26, 0.93, 0.22, 0.12), patterned=False, shade=0.10),
        Part(ellipse(hx, hy, 0.53, 0.44), patterned=False),
        *_eye(hx - 0.20, hy - 0.04, 0.13),
        *_eye(hx + 0.20, hy - 0.04, 0.13),
        Part(ellipse(hx, hy + 0.20, 0.18, 0.11), CREAM, edge=False),
        Part([(hx - 0.07, hy + 0.12), (hx + 0.07, hy + 0.12), (hx, hy + 0.21)], (225, 95, 120), edge=False),
    ]
    collar = box(hx - 0.40, hy + 0.33, hx + 0.36, hy + 0.53, 0.09)
    return Thing(parts, (0.02, 0.52, 0.34), collar)


def _fish(rng: Random) -> Thing:
    fin, fork = rng.uniform(0.28, 0.42), rng.uniform(0.42, 0.56)
    parts = [
        Part([(-0.55, 0.0), (-1.08, -fork), (-0.92, 0.0), (-1.08, fork)], shade=0.18, patterned=False),
        Part([(-0.25, -0.45), (0.0, -0.55 - fin), (0.32, -0.42)], shade=0.18, patterned=False),
        Part([(-0.15, 0.45), (-0.05, 0.52 + fin * 0.8), (0.22, 0.42)], shade=0.18, patterned=False),
        Part(ellipse(0.12, 0.0, 0.86, 0.56)),
        *_eye(0.62, -0.14, 0.15),
        Part(ribbon([(0.93, 0.20), (0.84, 0.22), (0.74, 0.18)], 0.07), INK, edge=False),
    ]
    return Thing(parts, (-0.05, 0.02, 0.32), box(0.26, -0.53, 0.44, 0.53, 0.05))


def _bird(rng: Random) -> Thing:
    wing, crest = rng.uniform(-18, 22), rng.uniform(0.10, 0.26)
    orange = (244, 150, 40)
    parts = [
        Part(ribbon([(-0.05, 0.55), (-0.08, 0.98)], 0.09), orange, edge=False),
        Part(ribbon([(0.18, 0.55), (0.20, 0.98)], 0.09), orange, edge=False),
        Part([(-0.55, -0.02), (-1.08, -0.34), (-1.02, 0.02), (-0.98, 0.22), (-0.50, 0.40)], patterned=False, shade=0.2),
        Part([(0.28, -0.85), (0.36, -0.90 - crest), (0.52, -0.88)], patterned=False, shade=0.2),
        Part([(0.82, -0.66), (1.16, -0.50), (0.82, -0.36)], orange),
        Part(ellipse(-0.05, 0.16, 0.68, 0.54, 12)),
        Part(ellipse(0.46, -0.52, 0.42, 0.40), patterned=False),
        Part(ellipse(-0.18, 0.10, 0.38, 0.23, 20 + wing), shade=0.22, patterned=False),
        *_eye(0.58, -0.58, 0.12),
    ]
    return Thing(parts, (-0.06, 0.20, 0.32), ribbon([(0.10, -0.32), (0.34, -0.14), (0.62, -0.08)], 0.19))


def _car(rng: Random) -> Thing:
    roof, nose = rng.uniform(-0.72, -0.60), rng.uniform(0.0, 0.12)
    glass, tyre, hub = (190, 226, 244), (48, 48, 54), (205, 208, 214)
    parts = [
        Part([(-0.78, -0.06), (-0.52, roof), (0.32, roof), (0.66, -0.06)], patterned=False, shade=0.08),
        Part([(-0.58, -0.10), (-0.43, roof + 0.14), (-0.12, roof + 0.14), (-0.12, -0.10)], glass),
        Part([(0.0, -0.10), (0.0, roof + 0.14), (0.25, roof + 0.14), (0.47, -0.10)], glass),
        Part(box(-1.06, -0.10 - nose * 0.5, 1.06, 0.48, 0.20)),
        Part(ellipse(0.95, 0.12, 0.10, 0.11), (255, 246, 190)),
    ]
    for x in (-0.58, 0.58):
        parts += [Part(ellipse(x, 0.50, 0.29, 0.29), tyre), Part(ellipse(x, 0.50, 0.13, 0.13), hub, edge=False)]
    return Thing(parts, (0.0, 0.19, 0.27), box(-1.08, -0.16, 1.08, -0.02, 0.05), 0.78)


def _house(rng: Random) -> Thing:
    peak, chimney = rng.uniform(-1.0, -0.86), rng.choice((-0.45, 0.42))
    roof, wood, glass = (122, 84, 72), (120, 78, 50), (255, 240, 170)
    parts = [
        Part(box(chimney - 0.10, -0.92, chimney + 0.10, -0.35), (150, 100, 88)),
        Part(box(-0.74, -0.24, 0.74, 0.92)),
        Part([(-0.98, -0.20), (0.0, peak), (0.98, -0.20)], roof),
        Part(box(0.16, 0.32, 0.50, 0.92, 0.04), wood),
        Part(box(-0.50, 0.02, -0.14, 0.38, 0.02), glass),
        Part(box(0.16, -0.10, 0.50, 0.20, 0.02), glass),
    ]
    return Thing(parts, (-0.32, 0.66, 0.24), box(-0.76, -0.22, 0.76, -0.06, 0.02))


def _mushroom(rng: Random) -> Thing:
    width, droop = rng.uniform(0.88, 1.0), rng.uniform(0.02, 0.14)
    arch = [(-width * math.cos(a), -0.02 - 0.88 * math.sin(a)) for a in (math.pi * i / 24 for i in range(25))]
    under = [(width * math.cos(a), droop + 0.10 * math.sin(a)) for a in (math.pi * i / 12 for i in range(13))]
    parts = [
        Part([(-0.30, 0.0), (-0.40, 0.94), (0.40, 0.94), (0.30, 0.0)], CREAM),
        Part(arch + under),
        *_eye(-0.13, 0.38, 0.10),
        *_eye(0.15, 0.38, 0.10),
        Part(ribbon([(-0.12, 0.62), (0.01, 0.68), (0.14, 0.62)], 0.07), INK, edge=False),
    ]
    return Thing(parts, (0.0, -0.46, 0.32), box(-0.36, 0.12, 0.36, 0.26, 0.05))


_BUILDERS: dict[str, Callable[[Random], Thing]] = {
    "cat": _cat,
    "fish": _fish,
    "bird": _bird,
    "car": _car,
    "house": _house,
    "mushroom": _mushroom,
}


def build(kind: str, rng: Random) -> Thing:
    """The parts of one `kind`, its proportions varied by `rng`."""
    return _BUILDERS[kind](rng)


def mark_parts(thing: Thing) -> list[Part]:
    """The subject's marks: a collar and a star, drawn over everything else."""
    x, y, radius = thing.star
    return [
        Part(thing.collar, COLLAR_COLOUR),
        Part(star(x, y, radius * 1.22), mix(STAR_EDGE, INK, 0.3), edge=False),
        Part(star(x, y, radius), STAR_COLOUR, edge=False),
    ]
