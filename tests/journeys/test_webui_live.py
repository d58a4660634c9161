"""Live merges in a real WebUI: from the page's sliders to the pictures, and back bit for bit."""
from __future__ import annotations

import json
from typing import Any

import pytest

from tests.journeys.installed_webui import SHOTS, WEBUI_MARKS
from tests.journeys.live_site import HALF, IN04, LiveSite, moved
from tests.journeys.steps import LONG, open_tab

pytestmark = WEBUI_MARKS
MERGE = "#sdtrain_merge"


@pytest.fixture
def site(live_site) -> LiveSite:
    return live_site


@pytest.fixture(autouse=True)
def own_weights(site):
    """Every test begins with tiny as it is in its file."""
    site.revert()
    site.options(sd_model_checkpoint="tiny.safetensors")


@pytest.fixture
def merge_page(site, open_page) -> Any:
    """Opens the Merge sub-tab with tiny and two chosen."""

    def open_one(**options: Any) -> Any:
        page = open_page(site.webui.url, **options)
        page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
        open_tab(page, "Merge")
        page.wait_for_selector(f"{MERGE}_plan .sdtrain-plan")
        page.wait_for_function("() => document.querySelector('#sdtrain_merge_a input').value.includes('tiny')")
        page.click(f"{MERGE}_b input")
        page.locator(f"{MERGE}_b ul li", has_text="two.safetensors").first.click()
        page.locator(f'{MERGE}_plan .sdtrain-plan[data-ready="true"]').wait_for(timeout=LONG)
        return page

    return open_one


def shot(page: Any, name: str) -> None:
    """Keep a picture of the page where a person wants to look."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


def wait_on(page: Any, on: bool = True) -> None:
    page.wait_for_selector(f'{MERGE}_live_bar[data-on="{str(on).lower()}"]', state="attached", timeout=LONG)


def wait_hash(page: Any, other_than: str) -> str:
    """The hash in the banner, once it is another one."""
    selector = f'{MERGE}_live_bar [data-part="hash"]'
    page.wait_for_function(
        "([selector, old]) => !['', old].includes(document.querySelector(selector).textContent)",
        arg=[selector, other_than], timeout=LONG,
    )  # fmt: skip
    return page.locator(selector).inner_text()


def test_sliders_change_the_loaded_model_and_revert_brings_it_back(site, merge_page):
    before, first = site.weights(), site.picture()
    page = merge_page()
    page.locator(f"{MERGE}_live input").check()
    wait_on(page)
    shown = wait_hash(page, "")
    assert "tiny.safetensors: merged, not saved" in page.locator(f"{MERGE}_live_bar").inner_text()
    pixels, infotext = site.picture()
    assert pixels != first[0]
    assert f"Model hash: {shown}" in infotext
    assert 'Model: "tiny (merged, not saved)"' in infotext
    shot(page, "live-on")
    page.locator("#sdm_IN04").fill("1")
    assert wait_hash(page, shown) != shown
    assert site.picture()[0] != pixels
    page.locator("#tabs > .tab-nav button", has_text="txt2img").click()
    assert page.locator("#sdtrain_live_badge").is_visible()
    shot(page, "live-badge")
    page.click("#sdtrain_live_badge")
    page.click(f"{MERGE}_live_revert")
    wait_on(page, False)
    page.wait_for_function("() => !document.querySelector('#sdtrain_merge_live input').checked")
    assert page.locator("#sdtrain_live_badge").is_hidden()
    assert site.weights() == before
    assert site.picture() == first


def test_the_recipe_in_the_infotext_is_the_merge(site):
    site.show(moved(IN04, 1.0))
    infotext = site.picture()[1]
    found = infotext.partition("SD Train merge: ")[2]
    recipe = json.loads(json.JSONDecoder().raw_decode(found)[0])
    assert recipe["settings"]["weights_alpha"] == moved(IN04, 1.0)
    names = {role: recipe["sd_merge_models"][digest]["name"] for role, digest in recipe["parents"].items()}
    assert names == {"a": "tiny.safetensors", "b": "two.safetensors"}
    site.revert()
    assert "SD Train" not in site.picture()[1]


@pytest.mark.parametrize("more", [{}, {"dtype": "bf16"}, {"method": "cosine_a"}])
def test_a_saved_merge_is_the_live_one(site, merge_page, more):
    name = "-".join(["saved", *more.values()])
    site.show(moved(IN04, 0.9), **more)
    live, weights = site.picture(), site.weights()
    page = merge_page()
    page.locator(f"{MERGE}_name input").fill(name)
    page.locator(f"{MERGE}_name input").blur()
    page.click(f"{MERGE}_live_save")
    site.wait_file(f"{name}.safetensors")  # a page just opened shows the job before, as finished
    page.wait_for_selector(f'{MERGE}[data-state="finished"]', timeout=LONG)
    assert site.picture() == live  # what is loaded has not changed
    site.options(sd_model_checkpoint=f"{name}.safetensors")
    assert site.state()["on"] is False
    assert site.weights() == weights
    pixels, infotext = site.picture()
    assert pixels == live[0]
    assert f"Model: {name}" in infotext


def test_another_checkpoint_ends_it_and_coming_back_loads_the_file(site):
    before, first = site.weights(), site.picture()
    site.show(HALF)
    site.options(sd_model_checkpoint="two.safetensors")
    assert site.state()["on"] is False
    assert "Model: two," in site.picture()[1]
    site.options(sd_model_checkpoint="tiny.safetensors")
    assert site.state()["on"] is False
    assert site.weights() == before
    assert site.picture() == first


def test_a_checkpoint_for_one_picture_leaves_the_merge_on(site):
    site.show(HALF)
    live = site.picture()
    other = site.picture(override_settings={"sd_model_checkpoint": "two.safetensors"})
    assert "Model: two," in other[1]
    assert site.picture() == live
    assert site.state()["on"] is True


def test_a_page_that_opens_later_finds_it_and_can_go_on(site, merge_page, open_page):
    site.show(moved(IN04, 0.75))
    page = open_page(site.webui.url)
    page.wait_for_selector("#sdtrain_live_badge", timeout=LONG)
    page.click("#sdtrain_live_badge")
    page.click(f"{MERGE}_live_fill")
    page.wait_for_function("() => document.querySelector('#sdm_IN04').value === '0.75'", timeout=LONG)
    assert page.locator(f"{MERGE}_live input").is_checked()
    assert "two.safetensors" in page.locator(f"{MERGE}_b input").input_value()


def test_another_model_a_is_told_to_be_loaded_first(site, merge_page):
    page = merge_page()
    page.click(f"{MERGE}_swap")
    page.wait_for_function("() => document.querySelector('#sdtrain_merge_a input').value.includes('two')")
    page.locator(f"{MERGE}_live input").check()
    problem = page.locator(f"{MERGE}_live_bar li", has_text="two.safetensors is not the loaded checkpoint")
    problem.wait_for(timeout=LONG)
    assert site.state()["on"] is False
