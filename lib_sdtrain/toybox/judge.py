"""The judge: a small classifier that reads from a picture what it shows. It learns on fresh renderings alone.

It never sees what a diffusion model drew while it learns. A light blur and noise keep it from leaning on pixels that
no autoencoder gives back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lib_sdtrain.toybox.scene import BACKGROUNDS, COLOURS, KINDS, PATTERNS, Scene, any_scene, keyed
from lib_sdtrain.toybox.testdata import SUBJECT_COLOUR, SUBJECT_KIND, SUBJECT_PATTERN
from lib_sdtrain.toybox.world import SIZE, render

HEADS: dict[str, tuple[object, ...]] = {
    "kind": KINDS,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "background": BACKGROUNDS,
    "marked": (False, True),
}
TRAINING_SEED, CHECK_SEED = 201, 202
TRAINING_PICTURES = 12000
SHIPPED = Path(__file__).with_name("judge.safetensors")


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one picture."""

    kind: str
    colour: str
    pattern: str
    background: str
    marked: bool


class Judge(nn.Module):
    """Five convolutions on the picture at half size, one linear head for each property."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128, 128)
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4, 256), nn.ReLU(), nn.Dropout(0.1))
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in HEADS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Pictures (B, 3, 128, 128) in -1..1 to logits (B, number of values) for each property."""
        body = self.body(pictures)
        return {name: head(body) for name, head in self.heads.items()}


def judged_scene(seed: int, index: int) -> Scene:
    """Any scene, a third of them marked; every third marked one, and as many unmarked, of the subject's own kind."""
    rng = keyed("judged", seed, index)
    scene = replace(any_scene(seed, index), marked=rng.random() < 1 / 3)
    if rng.random() < 1 / 6:
        return replace(scene, kind=SUBJECT_KIND, colour=SUBJECT_COLOUR, pattern=SUBJECT_PATTERN)
    return scene


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of any size to (B, 3, 128, 128) in -1..1."""
    arrays = [np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _targets(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([values.index(getattr(scene, name)) for scene in scenes]) for name, values in HEADS.items()
    }


def _disturbed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the batches blurred, all shifted by up to 6 pixels, a little noise."""
    if torch.rand((), generator=generator) < 0.5:
        pictures = functional.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    dx, dy = torch.randint(-6, 7, (2,), generator=generator).tolist()
    pictures = functional.pad(pictures, (6, 6, 6, 6), mode="replicate")[:, :, 6 + dy :, 6 + dx :][:, :, :SIZE, :SIZE]
    return pictures + 0.05 * torch.randn(pictures.shape, generator=generator)


def train_judge(count: int = TRAINING_PICTURES, epochs: int = 6, batch: int = 64) -> Judge:
    """Learn on `count` fresh renderings; about five minutes on one CPU core."""
    scenes = [judged_scene(TRAINING_SEED, index) for index in range(count)]
    pictures = torch.from_numpy(np.stack([np.asarray(render(scene)) for scene in scenes]))
    targets = _targets(scenes)
    torch.manual_seed(TRAINING_SEED)
    generator = torch.Generator().manual_seed(TRAINING_SEED)
    judge = Judge().train()
    steps = epochs * (count // batch)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        if step % (count // batch) == 0:
            order = torch.randperm(count, generator=generator)
        chosen = order[(step % (count // batch)) * batch :][:batch]
        shown = pictures[chosen].permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        logits = judge(_disturbed(shown, generator))
        loss = sum(functional.cross_entropy(logits[name], targets[name][chosen]) for name in HEADS)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def shipped_judge() -> Judge:
    """The judge that comes with SD Train: what `train_judge` learnt, in half precision."""
    judge = Judge()
    judge.load_state_dict({name: tensor.to(_dtype(name)) for name, tensor in load_file(SHIPPED).items()})
    return judge.eval()


def save_judge(judge: Judge, path: Path) -> None:
    """Write a judge in half precision."""
    save_file({name: tensor.half() for name, tensor in judge.state_dict().items()}, path)


def _dtype(name: str) -> torch.dtype:
    return torch.int64 if name.endswith("num_batches_tracked") else torch.float32


@torch.no_grad()
def read(judge: Judge, pictures: Sequence[Image.Image]) -> list[Reading]:
    """What each picture shows."""
    if not pictures:
        return []
    logits = judge(as_tensor(pictures))
    found = {name: [values[i] for i in logits[name].argmax(1).tolist()] for name, values in HEADS.items()}
    return [Reading(**dict(zip(found, row, strict=True))) for row in zip(*found.values(), strict=True)]


def accuracy(readings: Sequence[Reading], scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of the pictures in which each property is the one that `scenes` asked for."""
    pairs = list(zip(readings, scenes, strict=True))
    return {name: sum(getattr(r, name) == getattr(s, name) for r, s in pairs) / len(pairs) for name in HEADS}


def subject_fidelity(readings: Sequence[Reading]) -> float:
    """Share of the pictures that show the subject: its kind, with its marks."""
    return sum(reading.kind == SUBJECT_KIND and reading.marked for reading in readings) / len(readings)


def check(judge: Judge, count: int = 600) -> dict[str, float]:
    """The judge's own accuracy on held-out renderings."""
    scenes = [judged_scene(CHECK_SEED, index) for index in range(count)]
    readings = []
    for start in range(0, count, 100):
        readings += read(judge, [render(scene) for scene in scenes[start : start + 100]])
    return accuracy(readings, scenes)
