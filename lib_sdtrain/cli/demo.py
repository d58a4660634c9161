"""The jobs of the demo, each through the same engine as its own command."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from lib_sdtrain import merge, sample, train
from lib_sdtrain.cli.run import DONE, drive
from lib_sdtrain.durable import safe_name
from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.presets import read_preset
from lib_sdtrain.quality.sheets import save_sheet
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.sample import SampleRequest, SampleSettings
from lib_sdtrain.train.starting import pick_device, resolve_run

PRESET = "toybox-dreambooth"
SUBJECT, CLASS = "a photo of sks cat", "a photo of a red cat"
SCENES = ("on a beach", "in a forest", "in the snow", "at night")
MERGE_WEIGHTS = "0.5," + ",".join(["1"] * 4 + ["0.75"] * 4 + ["0.5"] * 4 + ["0.5"] + ["0.75"] * 4 + ["1"] * 8)
CELL = 256
PLAIN = SampleRequest(
    prompt=SUBJECT, steps=20, sampler_name="Euler a", cfg_scale=4.5, width=128, height=128, clip_skip=2,
    randn_source="CPU",
)
# toybox knows pictures of 128 pixels, so the first pass is smaller and the second ends there
HIRES = replace(
    PLAIN, width=96, height=96, enable_hr=True, hr_resize_x=128, hr_resize_y=128, hr_upscaler="Latent",
    denoising_strength=0.6,
)


def make_run(folder: Path, as_json: bool) -> int:
    """Train the subject into `folder`/run; what an earlier demo left is kept beside it."""
    run = folder / "run"
    if run.exists():
        _step_aside(run)
    resolved = resolve_run([Layer(f"preset {PRESET}", read_preset(PRESET))], pick_device())
    return drive(lambda token: train(resolved.settings, token, run_dir=run), as_json, _trained)


def _step_aside(run: Path) -> None:
    number = 1
    while (older := run.with_name(f"{run.name}-{number}")).exists():
        number += 1
    shutil.move(run, older)


def trained_file(folder: Path) -> Path:
    """The checkpoint that `make_run` wrote."""
    return next((folder / "run" / "checkpoints").glob("sks-cat.safetensors"))


def make_merge(folder: Path, as_json: bool) -> int:
    """Merge the trained model into its parent with 26 weights."""
    settings = MergeSettings(
        a="toybox", b=str(trained_file(folder)), method="weighted_sum", weights_alpha=MERGE_WEIGHTS,
        out=str(folder / "merged.safetensors"),
    )
    return drive(lambda token: merge(settings, token), as_json, lambda document: str(document["out"]))


def draw_contact_sheet(folder: Path, as_json: bool) -> int:
    """Rows: the subject before and after training, with hires fix, from the merged model; then the class."""
    rows = []
    pictures = folder / "samples"
    shutil.rmtree(pictures, ignore_errors=True)
    trained, merged = str(trained_file(folder)), str(folder / "merged.safetensors")
    for title, checkpoint, first in (
        ("before", "toybox", PLAIN), ("trained", trained, PLAIN), ("trained, hires fix", trained, HIRES),
        ("merged, hires fix", merged, HIRES), ("class kept", trained, replace(PLAIN, prompt=CLASS)),
    ):
        out, prompt = pictures / safe_name(title), first.prompt
        code = drive(lambda token, c=checkpoint, o=out, r=first: _draw(c, o, r, token), as_json, _drawn)
        if code != DONE:
            return code
        rows.append((f"{title}: {prompt}", [Image.open(file) for file in sorted(out.glob("*.png"))]))
    save_sheet(rows, folder / "contact-sheet.png", CELL)
    return DONE


def _draw(checkpoint: str, out: Path, first: SampleRequest, token: CancelToken) -> Iterator[Event]:
    requests = tuple(replace(first, prompt=f"{first.prompt} {scene}", seed=i + 3) for i, scene in enumerate(SCENES))
    return sample(SampleSettings(checkpoint=checkpoint, out=str(out), requests=requests), token)


def _trained(document: dict[str, Any]) -> str:
    return f"trained {document['checkpoint']} in {document['seconds']:.0f} s"


def _drawn(document: dict[str, Any]) -> str:
    return f"drew {len(document['images'])} pictures"
