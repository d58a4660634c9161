"""Toybox inside a real WebUI: the pictures of both hosts from the same infotext are the same.

`SDTRAIN_SHEETS=FOLDER` keeps the contact sheet as FOLDER/webui.png.
"""
from __future__ import annotations

import base64
import io
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.events import CancelToken
from lib_sdtrain.host.standalone import TOYBOX
from lib_sdtrain.quality.drawing import open_model
from lib_sdtrain.quality.sheets import save_sheet
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.requests import read_infotexts
from lib_sdtrain.toybox.judge import read, shipped_judge
from tests.journeys import installed_webui
from tests.journeys.installed_webui import FOLDER, WEBUI_MARKS
from tests.journeys.steps import LONG

pytestmark = WEBUI_MARKS
INFOTEXTS = """\
a photo of a red striped cat on a beach
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 11, Size: 128x128, RNG: CPU
=====
a photo of a blue bird at night
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 12, Size: 128x128, RNG: CPU
=====
a photo of a green spotted car in the snow
Negative prompt: night
Steps: 16, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 13, Size: 128x128, Clip skip: 2, RNG: CPU
=====
mushroom, pink, (spotted:1.2), forest
Steps: 12, Sampler: DDIM, CFG scale: 6, Seed: 14, Size: 128x96, RNG: CPU
"""


@pytest.fixture(scope="module")
def webui(tmp_path_factory):
    data = tmp_path_factory.mktemp("webui")
    installed_webui.prepare_data(data)
    started = installed_webui.start(Path(FOLDER), data)
    yield started
    started.process.kill()
    started.process.wait()


def theirs_of(webui, request, checkpoint=TOYBOX.path.name) -> Image.Image:
    """What the WebUI makes of a request with a checkpoint."""
    options = {"CLIP_stop_at_last_layers": request.clip_skip, "randn_source": request.randn_source,
               "sd_model_checkpoint": checkpoint}  # fmt: skip
    body = {
        "prompt": request.prompt, "negative_prompt": request.negative_prompt, "seed": request.seed,
        "steps": request.steps, "sampler_name": request.sampler_name, "scheduler": request.scheduler or "Automatic",
        "cfg_scale": request.cfg_scale, "width": request.width, "height": request.height,
        "override_settings": options,
    }
    return Image.open(io.BytesIO(base64.b64decode(webui.post("/sdapi/v1/txt2img", body)["images"][0])))


def test_toybox_is_added_by_its_button_and_listed(webui, open_page):
    page = open_page(webui.url)
    page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
    page.click("#sdtrain_train_add_toybox")
    page.wait_for_function("() => document.querySelector('#sdtrain_train_message').innerText.includes('toybox')")
    titles = [model["title"] for model in webui.get("/sdapi/v1/sd-models")]
    assert any(title.startswith(TOYBOX.path.name) for title in titles)


def test_both_hosts_draw_the_same_pictures_and_they_show_what_was_asked_for(webui):
    model = open_model(TOYBOX.path, "cpu")
    requests = read_infotexts(INFOTEXTS)
    own = [next(generate(model, request, CancelToken())).image for request in requests]
    others = [theirs_of(webui, request) for request in requests]
    if folder := os.environ.get("SDTRAIN_SHEETS"):
        save_sheet([("SD Train", own), ("AUTOMATIC1111 WebUI, same infotexts", others)], Path(folder) / "webui.png")
    for mine, other in zip(own, others, strict=True):
        difference = np.abs(np.asarray(mine, np.int16) - np.asarray(other.convert("RGB"), np.int16))
        assert difference.max() <= 2
    square = [other for other in others if other.size == (128, 128)]  # the judge knows no others
    assert [reading.kind for reading in read(shipped_judge(), square)] == ["cat", "bird", "car"]


LORA = {"method.kind": "lora", "method.rank": 4, "train.learning_rate": 0.03}
WORD = {"method.kind": "embedding", "embedding.name": "zwx", "embedding.vectors": 2, "train.learning_rate": 0.05,
        "embedding.init_words": "blue spotted"}  # fmt: skip
SUBJECT = TOYBOX.path.parent / "subject"
BEACH = """\
a photo of zwx cat on a beach{mark}
Steps: 8, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6, Seed: 5, Size: 128x128, RNG: CPU
"""


def train_in(webui, settings) -> None:
    """A run to its end; what it wrote is listed."""
    webui.post("/sdtrain/v1/train", {"settings": settings})
    until = time.monotonic() + LONG / 1000
    while (job := webui.get("/sdtrain/v1/job")["job"])["state"] in ("waiting", "running") and time.monotonic() < until:
        time.sleep(0.2)
    assert job["state"] == "finished", job["events"][-1]
    for kind in ("loras", "embeddings"):
        webui.post(f"/sdapi/v1/refresh-{kind}")


def ours(request, around: Surroundings | None = None) -> np.ndarray:
    """What our sampler makes of a request on toybox."""
    picture = next(generate(open_model(TOYBOX.path, "cpu"), request, surroundings=around))
    return np.asarray(picture.image, np.int16)


@pytest.mark.parametrize(("name", "method", "mark"), [("learnt", LORA, "<lora:learnt:0.8>"), ("word", WORD, "")])
def test_what_was_trained_beside_a_checkpoint_does_in_the_webui_what_our_sampler_says(
    webui, tmp_path, name, method, mark
):
    for picture in SUBJECT.glob("*.png"):  # without captions: theirs do not say zwx
        shutil.copy(picture, tmp_path)
    concept = {"name": "cat", "instance_dir": str(tmp_path), "instance_prompt": "a photo of zwx cat"}
    own = {"model.checkpoint": TOYBOX.path.name, "data.concepts": [concept], "train.length": 6}
    train_in(webui, {**own, "save.name": name, **method})
    folders = {"lora_dirs": (webui.data / "models" / "Lora",), "embeddings_dirs": (webui.data / "embeddings",)}
    request = read_infotexts(BEACH.format(mark=mark))[0]
    with_it = np.asarray(theirs_of(webui, request).convert("RGB"), np.int16)
    without = ours(replace(request, prompt=request.prompt.replace(mark, "")))
    assert np.abs(with_it - ours(request, Surroundings(**folders))).max() <= 2
    assert np.abs(with_it - without).mean() > 3
