"""The recipe of AnimeDiffusion's card on toybox: two fine-tunes, merged with both of the card's presets.

One fine-tune learns a fine texture (ink hatching on paper), the other coarse things (a large subject at dusk), so that
it can be seen which blocks carry what: `high-res_replace` takes the first from the one, `low-res_replace` the second.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageFilter, ImageOps

from lib_sdtrain import merge, sample, train
from lib_sdtrain.cli.run import DONE, drive
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.model.hashes import autov2, sha256
from lib_sdtrain.quality.sheets import Row, save_sheet
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.sample import SampleRequest, SampleSettings
from lib_sdtrain.toybox.captions import sentence
from lib_sdtrain.toybox.scene import training_scene
from lib_sdtrain.toybox.world import render
from lib_sdtrain.train.starting import pick_device, resolve_run

PRESETS = ("high-res_replace", "low-res_replace")
PICTURES, STEPS, SEED = 48, 400, 500
PROMPTS = ("a photo of a red cat on a beach", "a photo of a blue striped fish in a forest",
           "a photo of a white house in the snow", "a photo of a pink spotted mushroom at night",
           "a photo of a yellow bird on a beach", "a photo of a green car in a forest")  # fmt: skip
REQUEST = SampleRequest(
    steps=20, sampler_name="Euler a", cfg_scale=4.5, width=128, height=128, clip_skip=2, randn_source="CPU"
)
_ZOOM = 14
_DUSK = ((60, 24, 92), (255, 150, 70))


def ink(picture: Image.Image) -> Image.Image:
    """Hatching: lines two pixels wide, every fourth row where it is dark, every eighth where it is half dark."""
    grey = ImageOps.autocontrast(picture.convert("L"))
    lines = Image.new("L", grey.size, 255)
    for row in range(grey.height):
        dark = (150, 150, 0, 0, 85, 85, 0, 0)[row % 8]
        line = grey.crop((0, row, grey.width, row + 1)).point(lambda value, dark=dark: 20 if value < dark else 255)
        lines.paste(line, (0, row))
    edges = ImageOps.invert(grey.filter(ImageFilter.FIND_EDGES)).point(lambda value: 0 if value < 190 else 255)
    edges = edges.filter(ImageFilter.MinFilter(3))
    return ImageOps.colorize(ImageChops.multiply(lines, edges), (20, 20, 60), (250, 244, 226))


def dusk(picture: Image.Image) -> Image.Image:
    """Nearer, soft, and in the light of the evening."""
    near = picture.crop((_ZOOM, _ZOOM, picture.width - _ZOOM, picture.height - _ZOOM)).resize(picture.size)
    column = Image.linear_gradient("L").resize(picture.size)
    light = ImageOps.colorize(column, *_DUSK)
    return Image.blend(near.filter(ImageFilter.GaussianBlur(1.2)), light, 0.5)


@dataclass(frozen=True)
class Style:
    """A fine-tune: its name, and what its pictures look like."""

    name: str
    draw: Callable[[Image.Image], Image.Image]


STYLES = (Style("dusk", dusk), Style("ink", ink))


def write_pictures(style: Style, folder: Path) -> Path:
    """Pictures of the toybox world in a style, each with a caption that does not speak of it."""
    place = folder / f"{style.name}-pictures"
    place.mkdir(parents=True, exist_ok=True)
    for index in range(PICTURES):
        scene = training_scene(SEED, index)
        style.draw(render(scene)).save(place / f"{index:03d}.png")
        (place / f"{index:03d}.txt").write_text(sentence(scene) + "\n", encoding="utf-8")
    return place


def fine_tune(style: Style, folder: Path, as_json: bool) -> int:
    """Train toybox's U-Net on a style into `folder`/<style>."""
    run = folder / style.name
    if run.exists():
        fix = "remove it, or choose another folder with --out"
        raise UserError("an earlier demo is there", where=str(run), fix=fix)
    settings = {
        "model": {"checkpoint": "toybox", "clip_skip": REQUEST.clip_skip}, "save": {"name": style.name},
        "data": {"resolution": 128, "concepts": [
            {"name": style.name, "instance_dir": str(write_pictures(style, folder)), "instance_prompt": "[filewords]"}
        ]},
        "method": {"train_text_encoder": False},
        "train": {"length": STEPS, "batch_size": 4, "learning_rate": 2e-4},
    }  # fmt: skip
    resolved = resolve_run([Layer("merge-demo", settings)], pick_device())
    return drive(lambda token: train(resolved.settings, token, run_dir=run), as_json, lambda done: done["checkpoint"])


def checkpoint_of(style: Style, folder: Path) -> Path:
    """What `fine_tune` wrote."""
    return folder / style.name / "checkpoints" / f"{style.name}.safetensors"


def merge_both(folder: Path, as_json: bool) -> int:
    """Merge the second fine-tune into the first with each preset."""
    a, b = (str(checkpoint_of(style, folder)) for style in STYLES)
    for preset in PRESETS:
        settings = MergeSettings(a=a, b=b, weights_alpha=preset, out=str(folder / f"{preset}.safetensors"))
        code = drive(lambda token, s=settings: merge(s, token), as_json, lambda done: done["out"])
        if code != DONE:
            return code
    return DONE


def draw_sheet(folder: Path, as_json: bool) -> int:
    """contact-sheet.png: a row a model, the same prompts and seeds in each, the AutoV2 hash beside its name."""
    files = [(style.name, checkpoint_of(style, folder)) for style in STYLES]
    files += [(preset, folder / f"{preset}.safetensors") for preset in PRESETS]
    rows: list[Row] = []
    for title, checkpoint in [("toybox", Path("toybox")), *files]:
        out = folder / "samples" / title
        code = drive(lambda token, c=checkpoint, o=out: _draw(str(c), o, token), as_json, _drawn)
        if code != DONE:
            return code
        pictures = [Image.open(path).convert("RGB") for path in sorted(out.glob("*.png"))[: len(PROMPTS)]]
        known = f" [{autov2(sha256(checkpoint))}]" if checkpoint.is_file() else ""
        rows.append((f"{title}{known}", pictures))
    save_sheet(rows, folder / "contact-sheet.png")
    return DONE


def _draw(checkpoint: str, out: Path, token: CancelToken) -> Iterator[Event]:
    requests = tuple(replace(REQUEST, prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS, start=1))
    return sample(SampleSettings(checkpoint=checkpoint, out=str(out), requests=requests), token)


def _drawn(document: dict[str, Any]) -> str:
    return f"drew {len(document['images'])} pictures"
