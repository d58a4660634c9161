"""Further requests that AUTOMATIC1111 WebUI 1.10.1 answered on the tiny random SD1 model, in corners of its settings.

`make_parity_own.py` beside this file makes the references from an installed WebUI.
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

OWN = DATA.with_name("parity-own")
CASES = sorted(path.stem for path in OWN.glob("*.json"))
LATENT_TOLERANCE, PIXEL_TOLERANCE = 1e-4, 2
EIGHT_BITS_BETWEEN = 1e-3
"""Between the passes of these the picture is cut off to 8 bits, and one that falls on the other side shows."""


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_the_one_the_webui_gave(name):
    case = json.loads((OWN / f"{name}.json").read_text("utf-8"))
    facts = Facts(model_hash=HASHES["tiny-sd1"], model="tiny-sd1", version="1.10.1")
    around = Surroundings(facts, lora_dirs=(DATA,), embeddings_dirs=(DATA / "embeddings",))

    pictures = list(generate(model("tiny-sd1"), from_api(case["request"]), surroundings=around))

    wanted = np.load(OWN / f"{name}.npz")["latents"]
    got = np.stack([picture.latents.numpy() for picture in pictures])
    assert got.shape == wanted.shape
    eight_bits = case["request"].get("hr_upscaler", "Latent").startswith(("None", "Lanczos", "Nearest"))
    tolerance = EIGHT_BITS_BETWEEN if eight_bits else LATENT_TOLERANCE
    assert np.abs(got - wanted).max() / wanted.std() < tolerance
    for index, picture in enumerate(pictures):
        theirs = np.asarray(Image.open(OWN / f"{name}.{index}.png").convert("RGB"), dtype=int)
        assert np.abs(np.asarray(picture.image, dtype=int) - theirs).max() <= PIXEL_TOLERANCE
    assert [picture.infotext for picture in pictures] == case["infotexts"]


def test_there_are_cases():
    assert len(CASES) >= 20
