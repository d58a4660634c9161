"""Nothing that is wrong with the extension's surroundings keeps the WebUI from starting; the tab says what it is."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys import installed_webui
from tests.journeys.conftest import draw_subject
from tests.journeys.installed_webui import FOLDER, REPOSITORY, WEBUI_MARKS, Webui
from tests.journeys.steps import press, set_text, start, wait_plan, wait_state

pytestmark = WEBUI_MARKS
PARTS = ("lib_sdtrain", "javascript", "scripts", "install.py")
NO_DIFFUSERS = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "diffusers":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def damaged_extension(folder: Path) -> Path:
    """The extension with a syntax error in its preset."""
    folder.mkdir()
    for name in PARTS:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copyfile
        copy(REPOSITORY / name, folder / name)
    preset = folder / "lib_sdtrain" / "presets" / "toybox-dreambooth.yaml"
    preset.write_text("# toybox: try it in a minute\nmodel: {checkpoint: toybox\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def webui(tmp_path_factory) -> Iterator[Webui]:
    """A WebUI without diffusers, with a damaged preset, whose outputs folder cannot be made."""
    data, without = tmp_path_factory.mktemp("damaged"), tmp_path_factory.mktemp("without")
    (without / "sitecustomize.py").write_text(NO_DIFFUSERS, encoding="utf-8")
    installed_webui.prepare_data(data, damaged_extension(tmp_path_factory.mktemp("copy") / "sd-train"))
    draw_subject(data / "subject", 4)
    (data / "outputs").mkdir(exist_ok=True)
    (data / "outputs" / "sdtrain").write_text("a file is in the way", encoding="utf-8")
    started = installed_webui.start(Path(FOLDER), data, python_path=str(without))
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.fault("the WebUI starts; the tab says what is wrong and what to do")
def test_the_webui_starts_and_the_tab_tells_what_is_wrong(webui, open_page):
    assert webui.get("/sdapi/v1/sd-models")
    assert "Error" not in "".join(line for line in webui.log.read_text("utf-8").splitlines() if "sdtrain" in line)
    page = open_page(webui.url)
    page.locator("#tabs > .tab-nav button", has_text="SD Train").click()
    told = page.locator("#sdtrain_train_message", has_text="not valid YAML").first
    told.wait_for()
    assert "toybox-dreambooth.yaml" in told.inner_text()
    assert "no pictures are given" in wait_plan(page, ready=False)
    assert "is a file, a folder is needed there" in wait_plan(page, ready=False)

    for path, text in (("data.concepts.0.instance_dir", str(webui.data / "subject")), ("data.resolution", "64"),
                       ("data.concepts.0.instance_prompt", "a photo of sks ball"), ("train.length", "3")):  # fmt: skip
        set_text(page, path, text)
    page.locator(".sdtrain-plan", has_text="is a file, a folder is needed there").wait_for()
    press(page, "start")
    page.wait_for_timeout(1000)
    assert webui.get("/sdtrain/v1/job")["job"] is None

    (webui.data / "outputs" / "sdtrain").unlink()
    set_text(page, "train.length", "4")
    assert "4 steps" in wait_plan(page)
    start(page)
    wait_state(page, "failed")
    problems = page.locator('#sdtrain_run [data-part="problems"]').inner_text()
    assert "diffusers is not installed" in problems
    assert "install.py" in problems
    assert webui.post("/sdapi/v1/txt2img", {"prompt": "a", "steps": 1, "width": 64, "height": 64})["images"]
