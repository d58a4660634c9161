"""Pictures of what else can be done with a trained subject: merging it back by blocks, and hires fix."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lib_sdtrain.events import CancelToken, Event, Phase
from lib_sdtrain.merge.blocks import LAYOUTS
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.quality.drawing import REQUEST, open_model
from lib_sdtrain.quality.sheets import Row, save_sheet
from lib_sdtrain.sample.generate import generate
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.toybox.testdata import NAME, SUBJECT_KIND

SUBJECT = f"a photo of {NAME} {SUBJECT_KIND} in the snow"
OTHER = f"a photo of a red {SUBJECT_KIND} at night"
SEEDS = range(3)
LARGE = 192


def block_weights() -> Mapping[str, str]:
    """Which blocks come from the trained model: title -> 26 numbers."""
    def weights(*starts: str) -> str:
        return ",".join("1" if block.startswith(starts) else "0" for block in LAYOUTS["sd1"].names)

    return {
        "toybox": weights("no block"), "IN from the trained model": weights("IN"),
        "OUT from the trained model": weights("OUT"), "BASE and OUT": weights("BASE", "OUT"),
        "all of it": weights("BASE", "IN", "M", "OUT"),
    }


def merge_sheet(base: str, trained: str, folder: Path, device: str, token: CancelToken) -> Iterator[Event]:
    """merge.png: the subject and another of its kind, from merges that take ever more blocks."""
    from lib_sdtrain.merge import merge

    rows: list[Row] = []
    merged = folder / "merged.safetensors"
    for number, (title, weights) in enumerate(block_weights().items()):
        merged.unlink(missing_ok=True)
        settings = MergeSettings(a=base, b=trained, method="weighted_sum", weights_alpha=weights, out=str(merged))
        for _ in merge(settings, token):
            pass
        model = open_model(merged, device)
        pictures = [
            picture for prompt in (SUBJECT, OTHER) for seed in SEEDS
            for picture in _pictures(model, replace(REQUEST, prompt=prompt, seed=seed), token)
        ]
        rows.append((title, pictures))
        yield Phase(name="merging by blocks", done=number + 1, total=len(block_weights()), unit="merges")
    merged.unlink()
    yield save_sheet(rows, folder / "merge.png")


def hires_sheet(trained: str, folder: Path, device: str, token: CancelToken) -> Iterator[Event]:
    """hires.png: beyond the size that the model knows, drawn at once and with hires fix."""
    model = open_model(trained, device)
    plain = replace(REQUEST, prompt=SUBJECT, width=LARGE, height=LARGE)
    hires = replace(
        REQUEST, prompt=SUBJECT, enable_hr=True, hr_resize_x=LARGE, hr_resize_y=LARGE, hr_upscaler="Latent",
        denoising_strength=0.55,
    )
    rows = [
        (title, [picture for seed in SEEDS for picture in _pictures(model, replace(request, seed=seed), token)])
        for title, request in ((f"{LARGE}x{LARGE} drawn at once", plain), ("128x128, then hires fix", hires))
    ]
    yield save_sheet(rows, folder / "hires.png", LARGE)


def _pictures(model: LoadedModel, request: SampleRequest, token: CancelToken) -> list[Image.Image]:
    return [picture.image for picture in generate(model, request, token)]
