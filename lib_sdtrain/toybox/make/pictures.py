"""Renderings of the world kept as one array on disk, so that training never waits for drawing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lib_sdtrain.toybox.scene import Scene, any_scene, keyed, training_scene
from lib_sdtrain.toybox.world import render

AUTOENCODER_SEED, DIFFUSION_SEED, HELD_OUT_SEED = 11, 12, 13


def autoencoder_scene(index: int) -> Scene:
    """Any scene; every sixth carries the subject's marks, so that the autoencoder can draw stars and collars."""
    scene = any_scene(AUTOENCODER_SEED, index)
    return replace(scene, marked=keyed("marked", index).random() < 1 / 6)


def diffusion_scene(index: int) -> Scene:
    """A scene without held-out pairs and without marks."""
    return training_scene(DIFFUSION_SEED, index)


def rendered(scene_of, count: int, path: Path) -> np.ndarray:
    """Pictures 0..count-1 of `scene_of` as (count, 128, 128, 3) uint8, drawn once and memory-mapped from `path`."""
    if path.exists():
        return np.load(path, mmap_mode="r")
    pictures = np.stack([np.asarray(render(scene_of(index))) for index in range(count)])
    part = path.with_suffix(".part.npy")
    np.save(part, pictures)
    part.replace(path)
    return np.load(path, mmap_mode="r")
