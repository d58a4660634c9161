"""Live merges in a real WebUI under what it can do besides: LoRAs, fp8, VAEs, several models, refiners, Reload UI."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lib_sdtrain.host.live_weights import VAE
from tests.journeys.installed_webui import FOLDER, WEBUI_MARKS
from tests.journeys.live_site import HALF, IN04, LiveSite, moved, reload_ui
from tests.journeys.steps import LONG
from tests.sample.test_engine import lora

pytestmark = WEBUI_MARKS
LORA = "a ball <lora:small:1>"
MERGES = 50


@pytest.fixture(scope="module", params=["", "--medvram"])
def site(request, tmp_path_factory) -> Iterator[LiveSite]:
    data = tmp_path_factory.mktemp("webui")
    started = LiveSite(Path(FOLDER), data, *request.param.split())
    for folder in ("Lora", "VAE"):
        (data / "models" / folder).mkdir(exist_ok=True)
    lora(started.models / "tiny.safetensors", data / "models" / "Lora" / "small.safetensors", 0.1)
    vae = {key.removeprefix(VAE): value + 0.02 for key, value in load_file(started.models / "two.safetensors").items()
           if key.startswith(VAE)}  # fmt: skip
    save_file(vae, data / "models" / "VAE" / "other.safetensors")
    started.webui.post("/sdapi/v1/refresh-loras")
    started.webui.post("/sdapi/v1/refresh-vae")
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def own_weights(site):
    """Every test begins with tiny as it is in its file."""
    plain = {"sd_vae": "Automatic", "fp8_storage": "Disable", "cache_fp16_weight": False, "sd_checkpoints_limit": 1}
    site.revert()
    site.options(sd_model_checkpoint="tiny.safetensors", **plain)
    site.picture()


def saved(site: LiveSite, name: str, weights: list[float]) -> str:
    """A merge written to a file by the built-in way, loaded in the WebUI."""
    form = {"a": str(site.models / "tiny.safetensors"), "b": str(site.models / "two.safetensors"),
            "weights_alpha": ",".join(map(str, weights)), "name": name}  # fmt: skip
    site.webui.post("/sdtrain/v1/merge", form)
    site.wait_job()
    site.options(sd_model_checkpoint=f"{name}.safetensors")
    return name


def test_a_lora_in_the_prompt(site):
    before = site.weights()
    plain, first = site.picture(), site.picture(prompt=LORA)
    assert first[0] != plain[0]
    site.show(HALF)  # while the LoRA is in the weights
    with_lora, live = site.picture(prompt=LORA), site.picture()
    site.show(moved(IN04, 1.0))
    site.picture(prompt=LORA)
    site.show(HALF)
    assert site.picture(prompt=LORA) == with_lora
    assert site.picture() == live
    site.picture(prompt=LORA)
    site.revert()
    assert site.picture(prompt=LORA) == first
    assert site.picture() == plain
    assert site.weights() == before
    saved(site, "for-lora", HALF)
    assert site.picture(prompt=LORA)[0] == with_lora[0]
    assert site.picture()[0] == live[0]


@pytest.mark.parametrize("caches", [False, True])
def test_fp8_storage(site, caches):
    name = f"for-fp8-{caches}"
    saved(site, name, HALF)
    site.options(sd_model_checkpoint="tiny.safetensors", fp8_storage="Enable", cache_fp16_weight=caches)
    site.options(sd_model_checkpoint=f"{name}.safetensors")
    wanted = site.weights()
    site.options(sd_model_checkpoint="tiny.safetensors")
    before = site.weights()
    assert wanted != before
    site.show(HALF)
    assert site.weights() == wanted
    site.revert()
    assert site.weights() == before
    site.show(HALF)
    site.options(fp8_storage="Disable")  # the WebUI loads the file again
    assert site.state()["on"] is False


def test_several_models_in_memory(site):
    site.options(sd_checkpoints_limit=2)
    before, first = site.weights(), site.picture()
    site.show(HALF)
    live = site.picture()
    site.options(sd_model_checkpoint="two.safetensors")
    assert site.state()["on"] is False
    assert "Model: two," in site.picture()[1]
    site.options(sd_model_checkpoint="tiny.safetensors")  # the model that is still in memory, merged
    assert site.state()["on"] is True
    assert site.picture() == live
    site.revert()
    assert site.weights() == before
    assert site.picture() == first


def test_another_vae_comes_and_goes(site):
    before, first = site.weights(), site.picture()
    site.show(HALF)
    live = site.picture()
    site.options(sd_vae="other.safetensors")
    other = site.picture()
    assert other[0] != live[0]
    assert site.state()["on"] is True
    site.show(moved(0, 0.9))  # BASE: text encoder and VAE, while another VAE is in the model
    assert site.picture()[0] != other[0]
    site.show(HALF)
    assert site.picture()[0] == other[0]
    site.options(sd_vae="None")
    assert site.picture()[0] == live[0]
    site.options(sd_vae="other.safetensors")
    site.revert()
    site.options(sd_vae="None")
    assert site.weights() == before
    assert site.picture()[0] == first[0]


def test_a_refiner_does_not_end_it(site):
    refined = {"refiner_checkpoint": "two.safetensors", "refiner_switch_at": 0.5, "steps": 4}
    site.show(HALF)
    live = site.picture()
    single = site.picture(**refined, seed=2)
    both = site.webui.post("/sdapi/v1/txt2img", {**site.body(refined), "n_iter": 2, "seed": 1})
    assert site.pixels_of(both, 1) == single[0]
    assert "tiny (merged, not saved)" in single[1]
    assert site.picture() == live
    assert site.state()["on"] is True


def test_reload_ui_keeps_it(site, open_page):
    site.show(HALF)
    live = site.picture()
    page = open_page(site.webui.url)
    reload_ui(page)
    page.wait_for_selector("#sdtrain_live_badge", timeout=LONG)
    assert site.state()["on"] is True
    assert site.picture() == live
    site.revert()


def test_fifty_merges_leave_nothing_behind(site):
    before, first = site.weights(), site.picture()
    used = []
    for number in range(MERGES):
        site.show(moved(1 + number % 25, 0.1 + number / 100))
        site.picture()
        used.append(site.memory())
    assert used[-1] < used[0] * 1.03, [round(size / 2**20) for size in used]
    site.revert()
    assert site.weights() == before
    assert site.picture() == first


def test_the_precision_of_the_file_is_seen_in_the_loaded_model(site):
    site.show(HALF, dtype="bf16")
    rounded = site.weights()
    site.show(HALF)
    assert site.weights() != rounded
