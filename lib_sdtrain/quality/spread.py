"""Diversity (do samples of one prompt differ?) and memorisation (are they copies of training pictures?).

Distances are root mean square differences of pictures at 32x32, pixels in 0..1.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from PIL import Image

from lib_sdtrain.events import CancelToken, Event, Phase
from lib_sdtrain.quality.drawing import Drawn
from lib_sdtrain.toybox.make.pictures import HELD_OUT_SEED, diffusion_scene
from lib_sdtrain.toybox.scene import Scene, training_scene
from lib_sdtrain.toybox.world import render

SIDE = 32
EVERY = 200


def small(picture: Image.Image) -> np.ndarray:
    """A picture as (32 * 32 * 3,) float32 in 0..1."""
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel() / 255


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def diversity(groups: Sequence[Sequence[Image.Image]]) -> float:
    """Mean over groups of the mean distance between two pictures of the same group."""
    means = []
    for group in groups:
        points = [small(picture) for picture in group]
        means.append(np.mean([distance(a, b) for a, b in combinations(points, 2)]))
    return float(np.mean(means))


def renderings_like(scenes: Sequence[Scene], count: int) -> list[list[Image.Image]]:
    """For each scene `count` renderings of what its caption leaves open: place, size, style and small variations."""
    groups = []
    for number, scene in enumerate(scenes):
        others = (training_scene(HELD_OUT_SEED, 1000 * number + index) for index in range(count))
        groups.append([render(_dressed(other, scene)) for other in others])
    return groups


def _dressed(pose: Scene, scene: Scene) -> Scene:
    return replace(pose, kind=scene.kind, colour=scene.colour, pattern=scene.pattern, background=scene.background)


def nearest(points: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Distance (n,) of each of `points` (n, d) to the nearest of `training` (m, d)."""
    squares = (training**2).sum(1)[None] - 2 * points @ training.T + (points**2).sum(1)[:, None]
    return np.sqrt(np.maximum(squares.min(1), 0) / points.shape[1])


def training_points(count: int, token: CancelToken) -> Iterator[Event]:
    """Draws the first `count` training pictures anew; returns them as (count, 3072)."""
    points = np.empty((count, SIDE * SIDE * 3), np.float32)
    for index in range(count):
        if index % EVERY == 0:
            token.check()
            yield Phase(name="drawing the training pictures anew", done=index, total=count, unit="pictures")
        points[index] = small(render(diffusion_scene(index)))
    return points


def memorisation(drawn: Sequence[Drawn], fresh: Sequence[Image.Image], training: np.ndarray) -> tuple[float, float]:
    """Median distance to the nearest training picture: of the model's pictures, and of renderings never trained on."""
    own = np.stack([small(picture) for one in drawn for picture in one.pictures])
    others = np.stack([small(picture) for picture in fresh])
    return float(np.median(nearest(own, training))), float(np.median(nearest(others, training)))
