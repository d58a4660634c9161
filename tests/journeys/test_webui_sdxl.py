"""A LoRA of an SDXL model inside a real WebUI: both text encoders, transformers and convolutions.

The model has SDXL's layout and random weights; the UNet, the VAE and the first text encoder are scaled down, the second
is the smallest that open_clip has a name for.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib_sdtrain.host.clip_folder import adopt
from lib_sdtrain.model.family import PUBLISHED, SDXL, Family
from lib_sdtrain.model.ldm_yaml import describe
from lib_sdtrain.model.writer import write_checkpoint
from lib_sdtrain.quality.drawing import open_model
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.requests import read_infotexts
from tests.journeys import installed_webui
from tests.journeys.installed_webui import FOLDER, WEBUI_MARKS
from tests.journeys.test_webui_toybox import theirs_of, train_in
from tests.tiny import random_tensors, tiny_family

pytestmark = WEBUI_MARKS
NAME = "tinyxl.safetensors"
REQUEST = """\
a photo of a (sks:1.2) dog on grass{mark}
Negative prompt: blurry
Steps: 6, Sampler: Euler a, CFG scale: 5, Seed: 7, Size: 128x192, RNG: CPU
"""


def family() -> Family:
    """SDXL scaled down, with open_clip's ViT-S-32 (384 wide, 12 layers, projected to 384)."""
    tiny = tiny_family(SDXL)
    second = replace(PUBLISHED[SDXL].text[1], width=384, layers=12, intermediate=1536, projection=384)
    unet = replace(tiny.unet, model_channels=64, heads=(1, 1, 1), context_dim=64 + 384, adm_in_channels=384 + 6 * 256)
    return replace(tiny, unet=unet, text=(tiny.text[0], second))


@pytest.fixture(scope="module")
def webui(tmp_path_factory):
    data = tmp_path_factory.mktemp("webui")
    installed_webui.prepare_data(data)
    file = data / "models" / "Stable-diffusion" / NAME
    write_checkpoint(file, random_tensors(family()), {"format": "pt"}, describe(family()))
    adopt(file, data / "models" / "clip")
    started = installed_webui.start(Path(FOLDER), data)
    started.post("/sdapi/v1/options", {"live_previews_enable": False})  # it would fetch a network for SDXL's previews
    yield started
    started.process.kill()
    started.process.wait()


def ours(webui, request) -> np.ndarray:
    around = Surroundings(lora_dirs=(webui.data / "models" / "Lora",))
    picture = next(generate(open_model(webui.models / NAME, "cpu"), request, surroundings=around))
    return np.asarray(picture.image, np.int16)


def test_a_lora_of_sdxl_does_in_the_webui_what_our_sampler_says(webui, picture_folder):
    concept = {"name": "dog", "instance_dir": str(picture_folder("i", 3)), "instance_prompt": "a photo of sks dog"}
    train_in(webui, {
        "model.checkpoint": NAME, "data.concepts": [concept], "data.resolution": "128", "train.length": 4,
        "method.kind": "lora", "method.rank": 4, "method.conv_rank": 2, "method.train_text_encoder": True,
        "method.train_text_encoder_2": True, "train.learning_rate": 0.02, "save.name": "xl",
    })
    plain, with_it = (read_infotexts(REQUEST.format(mark=mark))[0] for mark in ("", " <lora:xl:0.7>"))
    drawn = [np.asarray(theirs_of(webui, request, NAME).convert("RGB"), np.int16) for request in (plain, with_it)]
    for request, picture in zip((plain, with_it), drawn, strict=True):
        assert np.abs(picture - ours(webui, request)).max() <= 2
    assert np.abs(drawn[0] - drawn[1]).mean() > 3
