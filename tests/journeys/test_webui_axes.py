"""X/Y/Z plots in a real WebUI over a live merge and over a run's saved steps."""
from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.journeys.installed_webui import SHOTS, WEBUI_MARKS
from tests.journeys.live_site import HALF, IN04, LiveSite, moved, reload_ui
from tests.journeys.steps import LONG

pytestmark = WEBUI_MARKS
NOTHING = ("Nothing", "", [])
_OPTIONS = [True, True, False, False, False, False, False, 0]  # legend, lone pictures, sub-grids, seeds ..., margin


@pytest.fixture
def site(live_site) -> LiveSite:
    return live_site


@pytest.fixture(autouse=True)
def half_merged(site):
    """Every test begins with half of two in tiny."""
    site.options(sd_model_checkpoint="tiny.safetensors")
    site.show(HALF)


def labels(site: LiveSite) -> list[str]:
    """The axes of txt2img's plot."""
    config = site.webui.get("/config")["components"]
    found = next(part["props"] for part in config if part["props"].get("elem_id") == "script_txt2img_xyz_plot_x_type")
    return [choice[0] if isinstance(choice, list) else choice for choice in found["choices"]]


def plot(site: LiveSite, x: tuple, y: tuple = NOTHING, csv: bool = True, **more: Any) -> tuple[list[bytes], list[str]]:
    """The lone pictures of a plot and their infotexts. An axis is (label, text, chosen)."""
    known = labels(site)
    axes = [part for label, text, chosen in (x, y, NOTHING) for part in (known.index(label), text, chosen)]
    body = site.body({**more, "script_name": "x/y/z plot", "script_args": [*axes, *_OPTIONS, csv]})
    answer = site.webui.post("/sdapi/v1/txt2img", body)
    texts = json.loads(answer["info"])["infotexts"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(image))).tobytes() for image in answer["images"]]
    return pictures[1:], texts[1:]


def test_a_block_against_alpha(site):
    before = site.weights()
    block, alpha = "[SD Train] Block weight", "[SD Train] Alpha of all blocks"
    pictures, texts = plot(site, (block, "IN04:0, 1", []), (alpha, "0.25-0.75 (+0.5)", []))
    assert len(pictures) == 4
    wanted = [(0.25, 0.0), (0.25, 1.0), (0.75, 0.0), (0.75, 1.0)]
    assert site.state()["on"] is True
    assert site.weights() == before  # the plot ends with what was on
    for (whole, single), pixels, text in zip(wanted, pictures, texts, strict=True):
        site.show(moved(IN04, single, [whole] * 26))
        assert site.picture()[0] == pixels
        assert f"Model hash: {site.state()['hash']}" in text


def test_presets_by_name(site):
    axis = "[SD Train] Weights of all blocks"
    pictures, _ = plot(site, (axis, "", ["ALL_A", "ALL_B"]), csv=False)
    site.show([0.0] * 26)
    assert site.picture()[0] == pictures[0]
    site.show([1.0] * 26)
    assert site.picture()[0] == pictures[1]


def test_the_axes_are_there_once_also_after_reload_ui(site, open_page):
    ours = [label for label in labels(site) if label.startswith("[SD Train]")]
    assert len(ours) == len(set(ours)) == 5
    page = open_page(site.webui.url)
    reload_ui(page)
    assert [label for label in labels(site) if label.startswith("[SD Train]")] == ours


def test_a_plot_from_the_page(site, open_page):
    page = open_page(site.webui.url)
    page.click("#script_list input")
    page.locator("#script_list ul li", has_text="X/Y/Z plot").click()
    page.click("#script_txt2img_xyz_plot_x_type input")
    page.locator("#script_txt2img_xyz_plot_x_type ul li", has_text="[SD Train] Block weight").first.click()
    page.locator("#script_txt2img_xyz_plot_x_values textarea").fill("IN04:0-1 (+0.5)")
    page.locator("#txt2img_prompt textarea").fill("a ball")
    for name, value in (("steps", "2"), ("width", "64"), ("height", "64")):
        page.locator(f"#txt2img_{name} input[type=number]").fill(value)
    page.click("#txt2img_generate")
    page.locator("#txt2img_gallery img").first.wait_for(timeout=LONG)
    if SHOTS:
        page.wait_for_timeout(500)
        page.screenshot(path=f"{SHOTS}/plot.png")
    assert page.locator("#html_log_txt2img .error").count() == 0
    assert site.state()["on"] is True
