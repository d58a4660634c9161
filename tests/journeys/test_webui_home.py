"""At home in a real WebUI: queue, API, LoRA cards, send to and from, presets, two browsers, Reload UI."""
from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.journeys.conftest import draw_subject
from tests.journeys.installed_webui import WEBUI_MARKS
from tests.journeys.live_site import LiveSite, reload_ui
from tests.journeys.steps import LONG, TRAIN, open_tab, press, set_text, wait_state

pytestmark = WEBUI_MARKS
RUNS = "#sdtrain_runs"
PROMPT = "a photo of sks ball"
INFOTEXT = (f"{PROMPT}, red\nNegative prompt: dull\nSteps: 2, Sampler: Euler, Schedule type: Automatic, CFG scale: 5, "
            "Seed: 7, Size: 64x64, Clip skip: 2")  # fmt: skip
V1 = "/sdtrain/v1"


@pytest.fixture(scope="module")
def subject(live_site) -> str:
    return str(draw_subject(live_site.webui.data / "subject", 4))


@pytest.fixture
def site(live_site, subject) -> LiveSite:
    return live_site


def choice(subject: str, name: str, **settings: Any) -> dict[str, Any]:
    """A small run, as the API takes it."""
    concept = {"name": "ball", "instance_dir": subject, "instance_prompt": PROMPT}
    short = {"data.concepts": [concept], "data.resolution": "64", "train.length": "4", "save.name": name}
    return {"settings": short | {path.replace("__", "."): value for path, value in settings.items()}}


def go(site: LiveSite, path: str, body: dict[str, Any]) -> Any:
    """What the API answers to this."""
    return site.webui.post(f"{V1}/{path}", body)


def trained(site: LiveSite, subject: str, name: str, **settings: Any) -> dict[str, Any]:
    """A run made by the API; its entry in the list of runs."""
    go(site, "train", choice(subject, name, **settings))
    site.wait_job()
    return site.webui.get(f"{V1}/runs")[0]


def wait_for(found: Any, what: str) -> Any:
    """What `found()` gives once it gives anything."""
    until = time.monotonic() + LONG / 1000
    while time.monotonic() < until:
        if (answer := found()):
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what} never came")


def opened(site: LiveSite, open_page: Any, **options: Any) -> Any:
    """A page with the tab in front."""
    page = open_page(site.webui.url, **options)
    page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
    page.wait_for_selector(f"{TRAIN}_plan .sdtrain-plan", state="attached")
    return page


def test_a_queue_of_three_goes_on_while_no_browser_is_open(site, subject, open_page):
    for name, length in (("one", "3000"), ("two-lora", "3"), ("three", "3")):
        kind = "lora" if "lora" in name else "full"
        body = choice(subject, f"queued-{name}", train__length=length, method__kind=kind)
        go(site, "train", {**body, "queue": True})
    page = opened(site, open_page)
    open_tab(page, "Runs")
    page.locator(f"{RUNS}_view li .sdr-chip[data-state=running]").wait_for()
    assert page.locator(f"{RUNS}_view [data-part=queue-words]").inner_text().startswith("2 wait")
    page.context.close()
    again = opened(site, open_page)
    wait_state(again, "running")
    assert "Then: queued-two-lora" in again.locator(f"{TRAIN}_queue").inner_text()
    again.context.close()
    site.webui.post(f"{V1}/stop", {"how": "save"})
    ended = wait_for(lambda: len(done(site)) >= 2 and done(site), "the end of the queue")
    assert ended == {"queued-two-lora": "finished", "queued-three": "finished"} | {"queued-one": "stopped"}
    assert (site.models / "queued-three.safetensors").is_file()
    site.webui.post(f"{V1}/queue-clear")


def done(site: LiveSite) -> dict[str, str]:
    """The queue's ended tasks by label, when nothing waits or runs."""
    queue = site.webui.get(f"{V1}/queue")
    if queue["waiting"] or queue["running"]:
        return {}
    return {task["label"]: task["state"] for task in queue["ended"]}


def test_a_lora_has_a_card_with_its_picture_and_words_and_is_used_by_a_click(site, subject, open_page):
    preview = INFOTEXT.replace("Clip skip: 2", "Clip skip: 1")
    trained(site, subject, "balls", method__kind="lora", train__learning_rate="0.01", preview__prompts=[preview])
    site.webui.post("/sdapi/v1/refresh-loras")
    assert "balls" in [one["name"] for one in site.webui.get("/sdapi/v1/loras")]
    folder = site.webui.data / "models" / "Lora"
    assert Image.open(folder / "balls.preview.png").size == (64, 64)
    page = open_page(site.webui.url)
    page.locator("#txt2img_extra_tabs > .tab-nav button", has_text="Lora").click()
    page.click("#txt2img_lora_extra_refresh")
    card = page.locator("#txt2img_lora_cards .card[data-name=balls]")
    card.wait_for(timeout=LONG)
    shown = card.locator("img.preview")
    assert shown.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 64
    card.click()
    box = page.locator("#txt2img_prompt textarea")
    page.wait_for_function("box => box.value.includes('<lora:balls:')", arg=box.element_handle())
    assert PROMPT in box.input_value()
    plain, drawn = site.picture(prompt=PROMPT), site.picture(prompt=box.input_value().strip())
    assert plain[0] != drawn[0]
    assert "balls:" in drawn[1]  # Lora hashes


def test_png_info_and_previews_are_sent_to_and_fro(site, subject, open_page, tmp_path):
    info = PngInfo()
    info.add_text("parameters", INFOTEXT)
    file = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(file, pnginfo=info)
    page = open_page(site.webui.url)
    page.locator("#tabs > .tab-nav button", has_text="PNG Info").click()
    page.set_input_files("#pnginfo_image input[type=file]", file)
    page.locator("#tab_pnginfo", has_text="Negative prompt").wait_for(timeout=LONG)
    page.click("#pnginfo_send_to_sdtrain")
    box = page.locator(f"{TRAIN}_preview_prompts textarea")
    page.wait_for_function("box => box.value.includes('Seed: 7')", arg=box.element_handle())
    assert box.is_visible()

    trained(site, subject, "sent", train__length="2", preview__prompts=[INFOTEXT])
    open_tab(page, "Runs")
    page.locator(f"{RUNS}_table tbody tr", has_text="sent").first.click()
    page.locator(f"{RUNS}_view .sdr-previews figure button", has_text="→ txt2img").first.click()
    prompt = page.locator("#txt2img_prompt textarea")
    page.wait_for_function("box => box.value.endsWith(', red')", arg=prompt.element_handle())
    assert prompt.input_value() == f"{PROMPT}, red"
    page.wait_for_function("() => document.querySelector('#txt2img_neg_prompt textarea').value === 'dull'")
    assert page.locator("#txt2img_width input[type=number]").input_value() == "64"
    assert page.locator("#txt2img_seed input").input_value() == "7"
    assert prompt.is_visible()


def test_a_preset_is_kept_over_reload_ui_and_seen_by_another_browser(site, subject, open_page, tmp_path):
    page = opened(site, open_page)
    if page.locator(f"{TRAIN}_again").is_visible():
        press(page, "again")
    set_text(page, "train.length", "1234")
    page.click(f"{TRAIN}_keeping .label-wrap")
    page.fill(f"{TRAIN}_preset_name textarea", "my long one")
    press(page, "save_preset")
    page.locator(f"{TRAIN}_kept", has_text="my-long-one").last.wait_for()
    with page.expect_download() as download:
        press(page, "as_file")
    shared = tmp_path / "shared.yaml"
    download.value.save_as(shared)
    assert "length: 1234" in shared.read_text("utf-8")
    reload_ui(page)
    other = opened(site, open_page)
    for one in (page, other):
        one.locator("#tabs > .tab-nav button", has_text="SD Train").click()
        if one.locator(f"{TRAIN}_again").is_visible():
            press(one, "again")
        one.click(f"{TRAIN}_preset input")
        one.locator(f"{TRAIN}_preset li", has_text="my-long-one").click()
        length = one.locator(f"{TRAIN}_train_length textarea").element_handle()
        one.wait_for_function("box => box.value === '1234'", arg=length)
    shared.write_text(shared.read_text("utf-8").replace("1234", "1235"), "utf-8")
    other.set_input_files("input[data-part=load-file]", shared)
    length = other.locator(f"{TRAIN}_train_length textarea").element_handle()
    other.wait_for_function("box => box.value === '1235'", arg=length)


def test_two_browsers_press_start_and_reload_ui_saves_and_stops(site, subject, open_page):
    pages = [opened(site, open_page), opened(site, open_page)]
    before = len(site.webui.get(f"{V1}/runs"))
    for page in pages:
        if page.locator(f"{TRAIN}_again").is_visible():
            press(page, "again")
        for path, text in (("data.concepts.0.instance_dir", subject), ("data.concepts.0.instance_prompt", PROMPT),
                           ("data.resolution", "64"), ("train.length", "400"), ("save.name", "raced")):  # fmt: skip
            set_text(page, path, text)
        page.locator(".sdtrain-plan", has_text="400 steps").wait_for()
    for page in pages:
        page.evaluate("() => document.querySelector('#sdtrain_train_start').click()")
    for page in pages:
        wait_state(page, "running")
    wait_for(lambda: len(site.webui.get(f"{V1}/runs")) > before, "the run")
    assert pages[0].evaluate("() => window.sdtrain.jobId()") == pages[1].evaluate("() => window.sdtrain.jobId()")
    pages[1].context.close()
    reload_ui(pages[0])  # the WebUI interrupts all work for it
    pages[0].locator("#tabs > .tab-nav button", has_text="SD Train").click()
    wait_state(pages[0], "stopped")
    assert len(site.webui.get(f"{V1}/runs")) == before + 1
    press(pages[0], "resume")
    wait_state(pages[0], "finished")


def test_what_the_tab_does_the_api_does(site, subject):
    plan = go(site, "plan", choice(subject, "by-api"))
    assert (plan["steps"], plan["images"]) == (4, 4)
    with pytest.raises(urllib.error.HTTPError) as refused:
        go(site, "train", choice(subject, "by-api", train__length="many"))
    assert refused.value.code == 422
    assert json.load(refused.value)["problems"][0]["where"] == "train.length"
    go(site, "train", choice(subject, "by-api", train__length="300"))
    wait_for(lambda: any(event["type"] == "step" for event in job(site)["events"]), "a step")
    assert go(site, "stop", {"how": "save"}) == {"stopped": True}
    wait_for(lambda: job(site)["state"] == "stopped", "the stop")
    run = site.webui.get(f"{V1}/runs")[0]
    go(site, "resume", {"run": run["name"], "settings": {"train.length": str(run["step"] + 2)}})
    site.wait_job()
    assert site.webui.get(f"{V1}/view/history/{run['name']}")["step"] == run["step"] + 2
    site.options(sd_model_checkpoint="by-api.safetensors")
    assert "Model: by-api" in site.picture()[1]
    site.options(sd_model_checkpoint="tiny.safetensors")
    go(site, "sample", {"checkpoint": "tiny.safetensors", "prompt": "a ball", "steps": 2, "width": 64, "height": 64,
                        "sampler_name": "Euler", "seed": 1, "randn_source": "CPU"})  # fmt: skip
    site.wait_job()
    newest = site.webui.get(f"{V1}/sample/recent")["pictures"][0]
    own = Image.open(io.BytesIO(fetched(site, f"{V1}/sample/picture/{newest['id']}"))).tobytes()
    theirs = site.picture(override_settings={"randn_source": "CPU"})[0]
    # The same formulas, but not the same order of adding: what lies between two of the 256 levels may fall to either
    # side. The WebUI's own attention kinds (None, InvokeAI, sub-quadratic) differ from each other in as many values.
    apart = [abs(mine - other) for mine, other in zip(own, theirs, strict=True)]
    assert max(apart) <= 1
    assert sum(apart) < len(apart) / 500


def job(site: LiveSite) -> dict[str, Any]:
    """What is at work, or was last."""
    return site.webui.get(f"{V1}/job")["job"]


def fetched(site: LiveSite, path: str) -> bytes:
    """A file from the server."""
    with urllib.request.urlopen(site.webui.url + path, timeout=120) as answer:
        return answer.read()
