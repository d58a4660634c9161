"""What a picture of the toybox world shows: a frozen `Scene`, drawn from keyed random numbers.

Everything here is a pure function of its arguments: the scene (seed, index) is the same on every machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

KINDS = ("cat", "fish", "bird", "car", "house", "mushroom")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PATTERNS = ("plain", "striped", "spotted")
BACKGROUNDS = ("beach", "forest", "snow", "night")
STYLES = ("outlined", "flat", "shaded")

# Pairs of kind and colour that the diffusion model never saw: what it draws for them, it has composed.
HELD_OUT = frozenset(
    {
        ("cat", "green"),
        ("fish", "purple"),
        ("bird", "orange"),
        ("car", "pink"),
        ("house", "blue"),
        ("mushroom", "yellow"),
    }
)


@dataclass(frozen=True)
class Scene:
    """One picture: what is in it and how it is drawn.

    `x`, `y` are the middle of the thing as fractions of the picture, `scale` its half height as a fraction of the
    picture's shorter side, `tilt` degrees anticlockwise, `flip` whether it looks left, `detail` the key of the
    small variations (proportions, where the sun stands) and `marked` whether it is the DreamBooth subject's
    kind of individual: with a star on the body and a collar.
    """

    kind: str
    colour: str
    pattern: str
    background: str
    x: float = 0.5
    y: float = 0.56
    scale: float = 0.33
    tilt: float = 0.0
    flip: bool = False
    style: str = "outlined"
    detail: int = 0
    marked: bool = False

    @property
    def held_out(self) -> bool:
        """Whether training never shows this pair of kind and colour."""
        return (self.kind, self.colour) in HELD_OUT

    @property
    def size(self) -> str:
        """The word for its size, empty for a middling one."""
        return "big" if self.scale > 0.355 else "small" if self.scale < 0.29 else ""


def keyed(*key: object) -> random.Random:
    """A random generator whose numbers depend on `key` alone, on any machine and Python."""
    return random.Random(":".join(map(str, key)))  # noqa: S311 - pictures, not secrets


def any_scene(seed: int, index: int) -> Scene:
    """The scene (seed, index), drawn evenly from all combinations, held-out ones too; never marked."""
    rng = keyed("scene", seed, index)
    return Scene(
        kind=rng.choice(KINDS),
        colour=rng.choice(COLOURS),
        pattern=rng.choice(PATTERNS),
        background=rng.choice(BACKGROUNDS),
        x=rng.uniform(0.42, 0.58),
        y=rng.uniform(0.52, 0.60),
        scale=rng.uniform(0.26, 0.39),
        tilt=rng.gauss(0.0, 5.0),
        flip=rng.random() < 0.5,
        style=rng.choice(STYLES),
        detail=rng.randrange(1 << 30),
    )


def training_scene(seed: int, index: int) -> Scene:
    """Like `any_scene`, but never a held-out pair: another colour is drawn in its place."""
    scene = any_scene(seed, index)
    if not scene.held_out:
        return scene
    seen = [colour for colour in COLOURS if (scene.kind, colour) not in HELD_OUT]
    return replace(scene, colour=keyed("recolour", seed, index).choice(seen))


def held_out_scene(seed: int, index: int) -> Scene:
    """Like `any_scene`, but always a held-out pair of kind and colour."""
    kind, colour = keyed("held out", seed, index).choice(sorted(HELD_OUT))
    return replace(any_scene(seed, index), kind=kind, colour=colour)
