"""Previews and class pictures that a real WebUI draws itself, with the weights that are being trained."""
from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_sdtrain.host.live_weights import VAE
from tests.journeys.conftest import draw_subject
from tests.journeys.installed_webui import WEBUI_MARKS
from tests.journeys.live_site import HALF, LiveSite, reload_ui
from tests.journeys.test_webui_home import V1, choice, go, job, wait_for

pytestmark = WEBUI_MARKS
SETTINGS = {"CLIP_stop_at_last_layers": 2, "randn_source": "CPU"}
HIRES = {
    "prompt": "a photo of sks ball, (red:1.2)", "negative_prompt": "dull", "steps": 4, "sampler_name": "DPM++ 2M",
    "scheduler": "Karras", "cfg_scale": 5, "seed": 7, "width": 64, "height": 64, "enable_hr": True, "hr_scale": 1.5,
    "hr_upscaler": "Lanczos", "hr_second_pass_steps": 3, "denoising_strength": 0.6, "override_settings": SETTINGS,
}  # fmt: skip
INFOTEXT = ("a photo of sks ball\nNegative prompt: dull\nSteps: 3, Sampler: LCM, Schedule type: Automatic, "
            "CFG scale: 5, Seed: 8, Size: 64x64, Clip skip: 2, ENSD: 31337, RNG: CPU")  # fmt: skip
EMBEDDING = {"method__kind": "embedding", "embedding__name": "sks", "embedding__vectors": 2}


@pytest.fixture(scope="module")
def subject(live_site) -> str:
    return str(draw_subject(live_site.webui.data / "subject", 4))


@pytest.fixture
def site(live_site, subject) -> LiveSite:
    live_site.options(sd_model_checkpoint="tiny.safetensors")
    return live_site


def settings_of(subject: str, name: str, **more: Any) -> dict[str, Any]:
    """A run of two steps with two previews by the WebUI."""
    plain = {"preview__drawn_by": "webui", "preview__prompts": [HIRES, INFOTEXT], "train__length": "2",
             "train__learning_rate": "0.001", "model__checkpoint": "tiny.safetensors"}  # fmt: skip
    return choice(subject, name, **{**plain, **more})


def trained(site: LiveSite, subject: str, name: str, **more: Any) -> Path:
    """The directory of a run that came to its end."""
    go(site, "train", settings_of(subject, name, **more))
    site.wait_job()
    return Path(site.webui.get("/sdtrain/v1/view/history/" + site.webui.get(f"{V1}/runs")[0]["name"])["path"])


def preview(run: Path, step: int, index: int) -> tuple[bytes, str]:
    """A preview's pixels and infotext."""
    image = Image.open(run / "samples" / f"step-{step:06d}-{index:02d}.png")
    return image.tobytes(), image.info["parameters"]


def drawn(site: LiveSite, body: dict[str, Any]) -> tuple[bytes, str]:
    """What the WebUI's own API gives."""
    image = Image.open(io.BytesIO(base64.b64decode(site.webui.post("/sdapi/v1/txt2img", body)["images"][0])))
    return image.tobytes(), image.info["parameters"]


def without_model(infotext: str) -> list[str]:
    """What an infotext says, but for the model's name and hash."""
    return [part for part in infotext.replace("\n", ", ").split(", ") if not part.startswith("Model")]


def facts(site: LiveSite) -> dict[str, Any]:
    """The host's state, but for what loading other models for comparison changes."""
    state = site.webui.get("/probe/state")
    state["options"].pop("sd_checkpoint_hash", None)
    return state


def test_a_preview_is_what_txt2img_gives_with_the_saved_checkpoint(site, subject):
    picture = site.picture()
    before = facts(site)
    run = trained(site, subject, "by-webui")
    after = facts(site)
    assert after == before
    assert site.picture() == picture
    assert preview(run, 0, 0)[0] == drawn(site, HIRES)[0]
    site.options(sd_model_checkpoint="by-webui.safetensors")
    for index, body in enumerate((HIRES, {"infotext": INFOTEXT})):
        shown, infotext = preview(run, 2, index)
        pixels, theirs = drawn(site, body)
        assert shown == pixels
        assert without_model(infotext) == without_model(theirs)
        assert "Model: by-webui-000002" in infotext
        assert "Model hash" not in infotext
        assert preview(run, 0, index)[0] != shown


def test_a_refiner_takes_the_models_place_and_gives_it_back(site, subject):
    refined = {**HIRES, "refiner_checkpoint": "two.safetensors", "refiner_switch_at": 0.5, "enable_hr": False}
    picture = site.picture()
    before = facts(site)
    run = trained(site, subject, "refined", preview__prompts=[refined, HIRES])
    assert {**facts(site), "model": 0} == {**before, "model": 0}  # the WebUI makes the model anew for each file's yaml
    assert site.picture() == picture
    site.options(sd_model_checkpoint="refined.safetensors")
    for index, body in enumerate((refined, HIRES)):
        assert preview(run, 2, index)[0] == drawn(site, body)[0]


def test_another_vae_in_a_preview_stays_in_it(site, subject):
    """The WebUI puts back only settings that its file names, and none where a request says so."""
    folder = site.webui.data / "models" / "VAE"
    folder.mkdir(parents=True, exist_ok=True)
    own = load_file(site.models / "tiny.safetensors")
    other = {key.removeprefix(VAE): value + 0.02 for key, value in own.items() if key.startswith(VAE)}
    save_file(other, folder / "other.safetensors")
    site.webui.post("/sdapi/v1/refresh-vae")
    settings = {**SETTINGS, "sd_vae": "other.safetensors", "eta_ancestral": 0.5}
    body = {**HIRES, "override_settings": settings, "override_settings_restore_afterwards": False}
    picture = site.picture()
    before = facts(site)
    run = trained(site, subject, "other-vae", preview__prompts=[body, HIRES])
    assert facts(site) == before
    assert site.picture() == picture
    assert preview(run, 0, 0)[0] != preview(run, 0, 1)[0]
    assert preview(run, 0, 1)[0] == drawn(site, HIRES)[0]


def test_a_live_merge_is_there_again_and_class_pictures_show_the_checkpoint(site, subject):
    plain, body = site.picture(), {"prompt": "a photo of a ball", "steps": 50, "sampler_name": "DDIM", "cfg_scale": 10,
                                   "width": 64, "height": 64, "override_settings": {"CLIP_stop_at_last_layers": 1}}
    site.show(HALF)
    merged, weights, classes = site.picture(), site.weights(), site.webui.data / "class"
    assert merged[0] != plain[0]
    concept = {"name": "ball", "instance_dir": subject, "instance_prompt": "a photo of sks ball",
               "class_dir": str(classes), "class_prompt": "a photo of a ball", "num_class_images": 2}  # fmt: skip
    chosen = {"data__concepts": [concept], "data__class_drawn_by": "webui"}
    run = trained(site, subject, "beside-a-merge", **chosen)
    assert site.state()["state"] == "on"
    assert site.weights() == weights
    assert site.picture() == merged
    assert "SD Train merge" not in preview(run, 2, 0)[1]
    site.revert()
    assert site.picture() == plain
    for number in range(2):
        image = Image.open(classes / f"class-{number:05d}.png")
        seed = int(image.info["parameters"].partition("Seed: ")[2].partition(",")[0])
        assert image.tobytes() == drawn(site, {**body, "seed": seed})[0]


def test_a_lora_and_an_embedding_are_shown_as_the_webui_loads_them(site, subject):
    lora = trained(site, subject, "lora-shown", method__kind="lora", train__learning_rate="0.05")
    site.webui.post("/sdapi/v1/refresh-loras")
    theirs, _ = drawn(site, {**HIRES, "prompt": HIRES["prompt"] + "<lora:lora-shown:1>"})
    plain, _ = drawn(site, HIRES)
    shown = preview(lora, 2, 0)[0]
    assert apart(plain, shown).mean() > 2
    assert apart(theirs, shown).max() <= 2  # the file is in fp16
    assert preview(lora, 0, 0)[0] == plain

    words = trained(site, subject, "words-shown", train__learning_rate="0.05", **EMBEDDING)
    site.webui.post("/sdapi/v1/refresh-embeddings")
    assert "sks" in site.webui.get("/sdapi/v1/embeddings")["loaded"]
    theirs, infotext = drawn(site, HIRES)
    assert "TI hashes" in infotext
    shown = preview(words, 2, 0)[0]
    assert shown == theirs
    assert shown != plain
    (site.webui.data / "embeddings" / "sks.safetensors").unlink()
    site.webui.post("/sdapi/v1/refresh-embeddings")


def apart(one: bytes, other: bytes) -> np.ndarray:
    """How far values of two pictures are apart."""
    return np.abs(np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8))


def test_a_picture_that_fails_or_is_stopped_changes_nothing(site, subject):
    picture = site.picture()
    before = facts(site)
    site.webui.post("/probe/drawing-fault?on=1")
    go(site, "train", settings_of(subject, "fails"))
    wait_for(lambda: job(site)["state"] == "failed", "the failure")
    site.webui.post("/probe/drawing-fault")
    assert "out of memory" in job(site)["events"][-1]["problems"][0]
    assert facts(site) == before

    slow = {**HIRES, "steps": 1500, "enable_hr": False}
    for how in ("ours", "theirs"):
        go(site, "train", settings_of(subject, f"stopped-{how}", preview__prompts=[slow]))
        wait_for(lambda: site.webui.get("/sdapi/v1/progress")["state"]["sampling_step"] > 5, "the drawing")
        assert job(site)["state"] == "running"
        if how == "ours":
            go(site, "stop", {"how": "save"})
        else:
            site.webui.post("/sdapi/v1/interrupt")
        wait_for(lambda: job(site)["state"] == "stopped", "the stop")
        assert facts(site) == before
    assert site.picture() == picture


def test_what_cannot_be_drawn_is_said_at_its_setting(site, subject):
    wrong = [{**HIRES, "sampler_name": "Nobody"}, {**HIRES, "hr_upscaler": "4x-Nothing"}, {**HIRES, "stepps": 3},
             {**HIRES, "alwayson_scripts": {"Nothing": {}}}]  # fmt: skip
    found = problems_of(site, settings_of(subject, "wrong", preview__prompts=wrong))
    assert [problem["where"] for problem in found] == [f"preview.prompts.{index}" for index in range(4)]
    [other] = problems_of(site, settings_of(subject, "wrong", model__checkpoint="two.safetensors"))
    assert "not the checkpoint that is trained (two.safetensors)" in other["what"]


def problems_of(site: LiveSite, body: dict[str, Any]) -> list[dict[str, str]]:
    """What the plan of a run is refused for."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        go(site, "plan", body)
    return json.load(refused.value)["problems"]


def test_a_model_chosen_meanwhile_waits_for_the_end(site, subject, open_page):
    picture = site.picture()
    go(site, "train", settings_of(subject, "waited-for", train__length="120", preview__every="10"))
    wait_for(lambda: any(event["type"] == "step" for event in job(site)["events"]), "a step")
    wish = threading.Thread(target=site.options, kwargs={"sd_model_checkpoint": "two.safetensors"})
    wish.start()
    wait_for(lambda: any(event["type"] == "preview" and event["step"] >= 30 for event in job(site)["events"]),
             "a later preview")  # fmt: skip
    page = open_page(site.webui.url)
    go(site, "stop", {"how": "save"})
    wish.join(120)
    assert not wish.is_alive()
    run = Path(site.webui.get(f"{V1}/view/history/" + site.webui.get(f"{V1}/runs")[0]["name"])["path"])
    assert all("Model: waited-for" in preview(run, step, 0)[1] for step in (0, 10, 20, 30))
    assert Path(site.webui.get("/probe/state")["checkpoint"]).name == "two.safetensors"
    assert site.picture()[0] != picture[0]
    site.options(sd_model_checkpoint="tiny.safetensors")
    assert site.picture() == picture
    reload_ui(page)
    trained(site, subject, "after-reload")
    assert site.picture() == picture
