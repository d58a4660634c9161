"""The Dataset sub-tab in a real browser: what training will use, page by page, before it is started."""
from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.api.dataset import DatasetService
from lib_sdtrain.data import scanning
from tests.journeys.steps import open_tab, set_text, wait_plan

pytestmark = pytest.mark.browser
DATASET = "#sdtrain_dataset_view"
LONG_NAME = "a very long name of a picture that somebody gave it in a hurry " * 3


def part(page, name: str):
    return page.locator(f'{DATASET} [data-part="{name}"]')


def opened(site, open_page, **options):
    page = open_page(site.url, **options)
    wait_plan(page)
    open_tab(page, "Dataset")
    part(page, "headline").wait_for()
    part(page, "grid").locator("figure").first.wait_for()
    return page


def names(page) -> list[str]:
    return part(page, "grid").locator("figcaption span:first-child").all_inner_texts()


def add_pictures(folder, count: int, size=(96, 64)) -> None:
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        name = f"{number:04d} {LONG_NAME}"[:200] if number % 10 == 0 else f"{number:04d}"
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}.png")


def test_what_training_would_use_is_shown_with_its_crops(site, open_page):
    page = opened(site, open_page)
    assert part(page, "headline").inner_text().startswith("8 pictures · 40 steps")
    assert "128 × 128" in part(page, "buckets").inner_text()
    assert "sks-cup" in part(page, "shares").inner_text()
    assert names(page) == [f"ball-{number}.png" for number in range(8)]
    picture = part(page, "grid").locator("img").nth(7)
    assert picture.evaluate("picture => picture.decode().then(() => [picture.naturalWidth, picture.naturalHeight])") \
        == [184, 128]
    crop = part(page, "grid").locator(".sdd-crop").nth(7)
    stage = part(page, "grid").locator(".sdd-whole").nth(7)
    assert abs(crop.bounding_box()["width"] / stage.bounding_box()["width"] - 128 / 184) < 0.02
    prompts = part(page, "prompts").locator("> li")
    assert prompts.count() == 20
    assert "number" in prompts.first.locator("code").all_inner_texts()
    assert "left out" not in part(page, "marks").inner_text()


def test_lists_pages_and_searches_of_a_large_folder(site, open_page):
    folder = site.folder / "subject"
    add_pictures(folder, 60)
    (folder / "broken.png").write_bytes(b"no picture")
    Image.open(folder / "0001.png").save(folder / "0001-again.png")
    page = opened(site, open_page, width=800)
    assert "1 picture left out" in part(page, "marks").inner_text()
    assert "broken.png" in part(page, "notices").inner_text()
    assert part(page, "grid").locator("figure").count() == 48
    page.click(f"{DATASET} [data-do=on]")
    part(page, "place").get_by_text("49–69 of 69").wait_for()
    part(page, "marks").locator("button", has_text="the same picture").click()
    part(page, "grid").locator(".sdd-flag", has_text="the same as 0001").first.wait_for()
    part(page, "which").select_option("all")
    part(page, "search").fill("in a hurry")
    part(page, "place").get_by_text("1–6 of 6").wait_for()
    wide = "() => document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(wide), "a long name makes the page wider than the window"


def test_the_form_and_another_folder_decide_what_is_looked_at(site, open_page):
    page = opened(site, open_page)
    other = site.folder / "other"
    other.mkdir()
    add_pictures(other, 3)
    part(page, "folder").fill(str(other))
    part(page, "folder").press("Enter")
    part(page, "headline").get_by_text("3 pictures").wait_for()
    part(page, "folder").fill(str(site.folder / "nowhere"))
    part(page, "folder").press("Enter")
    page.locator("#sdtrain_dataset_message", has_text="there is no folder").last.wait_for()
    part(page, "folder").fill("")
    part(page, "folder").press("Enter")
    part(page, "headline").get_by_text("8 pictures").wait_for()
    open_tab(page, "Train")
    set_text(page, "train.length", "9")
    page.locator(".sdtrain-plan", has_text="9 steps").wait_for()
    open_tab(page, "Dataset")
    part(page, "headline").get_by_text("9 steps").wait_for()


def test_reading_shows_how_far_it_is_and_stops(site, open_page, monkeypatch):
    go_on, facts = threading.Event(), scanning.read_facts
    monkeypatch.setattr(scanning, "read_facts", lambda path: go_on.wait(60) and facts(path))
    page = open_page(site.url)
    wait_plan(page)
    open_tab(page, "Dataset")
    page.click(f"{DATASET} [data-do=stop]")
    go_on.set()
    part(page, "state").get_by_text("Stopped").wait_for()
    page.click(f"{DATASET} [data-do=look]")
    part(page, "headline").get_by_text("8 pictures").wait_for()


def test_what_was_read_can_be_looked_through_while_it_is_read_again(site, open_page, monkeypatch):
    page = opened(site, open_page)
    go_on, read = threading.Event(), DatasetService._read
    monkeypatch.setattr(DatasetService, "_read", lambda *args: go_on.wait(60) and read(*args))
    page.click(f"{DATASET} [data-do=look]")
    part(page, "progress").wait_for()
    part(page, "search").fill("ball-3")
    page.wait_for_function("grid => grid.children.length === 1", arg=part(page, "grid").element_handle())
    picture = part(page, "grid").locator("img")
    assert picture.evaluate("picture => picture.decode().then(() => picture.naturalHeight)") == 128
    go_on.set()
    part(page, "progress").wait_for(state="hidden")
    assert names(page) == ["ball-3.png"]


def edit(page, name: str):
    return page.locator(f'#sdtrain_preparing_view [data-part="{name}"]')


def act(page, name: str) -> None:
    page.click(f"#sdtrain_preparing_view [data-act={name}]")


def test_captions_are_changed_after_they_were_shown_and_all_is_taken_back(site, open_page):
    folder = site.folder / "subject"
    words = {path.name: path.read_text() for path in folder.glob("*.txt")}
    assert words
    page = opened(site, open_page)
    page.click("#sdtrain_preparing_view > summary")
    act(page, "tags")
    tag = edit(page, "tags").locator("button").first
    tag.wait_for()
    tag.click()
    found = edit(page, "find").input_value()
    edit(page, "replace").fill("<b>else</b>")
    act(page, "show")
    edit(page, "said").get_by_text("would change").wait_for()
    shown = edit(page, "changes").locator("ins").first.inner_text()
    assert "<b>else</b>" in shown
    assert {path.name: path.read_text() for path in folder.glob("*.txt")} == words
    edit(page, "replace").fill("else")
    assert page.locator("#sdtrain_preparing_view [data-act=write]").is_disabled(), "what is written was not shown"
    act(page, "show")
    page.locator("#sdtrain_preparing_view [data-act=write]:enabled").click()
    edit(page, "said").get_by_text("written").wait_for()
    assert not any(found in path.read_text() for path in folder.glob("*.txt"))
    act(page, "undo")
    edit(page, "said").get_by_text("as before").wait_for()
    assert {path.name: path.read_text() for path in folder.glob("*.txt")} == words


def test_pictures_are_resized_into_a_folder_and_mistakes_stand_beside_the_buttons(site, open_page):
    page = opened(site, open_page, width=800)
    page.click("#sdtrain_preparing_view > summary")
    act(page, "resize")
    edit(page, "problems").get_by_text("no folder for the result is given").wait_for()
    out = site.folder / "resized"
    edit(page, "out").fill(str(out))
    act(page, "resize")
    edit(page, "said").get_by_text("8 pictures in").wait_for()
    assert edit(page, "problems").locator("li").count() == 0
    assert {Image.open(path).size for path in out.glob("*.png")} == {(128, 128)}
    act(page, "undo")
    edit(page, "said").get_by_text("as before").wait_for()
    assert list(out.glob("*.png")) == []
