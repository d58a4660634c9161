"""What AUTOMATIC1111 WebUI 1.10.1 produced for the same requests on the same random checkpoints.

Weights are random, so latents are large (std 11 to 29) and every detail shows. Changing only the attention kernel
inside the WebUI moves its own latents by 1e-5 of their standard deviation, and DPM adaptive's by 2e-2 (its steps feed
on rounding); so DPM adaptive is compared with k-diffusion's algorithm instead (test_samplers.py).
"""
from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.infotext import Facts
from lib_sdtrain.sample.requests import from_api
from tests.sample.random_models import DATA, HASHES, model

CASES = sorted(path.stem for path in (DATA / "cases").glob("*.json"))
LATENT_TOLERANCE = 1e-4
PIXEL_TOLERANCE = 2


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_the_one_the_webui_gave(name):
    folder = DATA / "cases"
    case = json.loads((folder / f"{name}.json").read_text("utf-8"))
    request = from_api(case["request"])
    kind = (request.options.sd_model_checkpoint or "tiny-sd1").removesuffix(".safetensors")
    facts = Facts(model_hash=HASHES[kind], model=kind, version="v1.10.1")
    around = Surroundings(facts, lora_dirs=(DATA,), embeddings_dirs=(DATA / "embeddings",))

    pictures = list(generate(model(kind), request, surroundings=around))

    wanted = np.load(folder / f"{name}.latents.npy")
    got = np.stack([picture.latents.numpy() for picture in pictures])
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() / wanted.std() < LATENT_TOLERANCE
    for index, picture in enumerate(pictures):
        theirs = np.asarray(Image.open(folder / f"{name}.{index}.png").convert("RGB"), dtype=int)
        ours = np.asarray(picture.image, dtype=int)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= PIXEL_TOLERANCE
    assert [picture.infotext for picture in pictures] == case["infotexts"]


def test_there_are_cases_of_every_sampler_but_the_adaptive_one():
    from lib_sdtrain.sample.samplers.registry import SAMPLERS

    seen = {json.loads((DATA / "cases" / f"{name}.json").read_text("utf-8"))["request"]["sampler_name"]
            for name in CASES}
    assert {sampler.name for sampler in SAMPLERS} - seen == {"DPM adaptive"}
