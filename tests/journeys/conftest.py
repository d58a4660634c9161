"""A headless Chromium, and the page it is sent to."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from lib_sdtrain.ui.standalone import serve
from tests.fake_engine import FakeEngine
from tests.journeys.installed_webui import FOLDER
from tests.journeys.live_site import LiveSite
from tests.journeys.steps import LONG

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Watched:
    """A page and the errors in its console that are ours."""

    page: Any
    errors: list[str] = field(default_factory=list)

    def note(self, text: str, address: str) -> None:
        """Keep an error that is ours."""
        if _ours(text, address):
            self.errors.append(f"{text} {address}".strip())


def _ours(text: str, address: str) -> bool:
    """The hosts' own pages report a font or a script of another site that cannot be loaded."""
    if "ERR_INTERNET_DISCONNECTED" in text or "ERR_CONNECTION" in text:  # a test pulled the plug, or reloads the UI
        return False
    if "404" in text and "/job/" in address and "/preview/" in address:  # asked for as another job took its place
        return False
    return "sdtrain" in text + address or ("Failed to load resource" not in text and "reading 'props'" not in text)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.skip("no Chromium was found")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens pages as browsers of their own; fails when one of them reports an error of ours."""
    opened: list[tuple[Any, Watched]] = []

    def open_one(url: str, width: int = 1400, dark: bool = False) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900})
        context.set_default_timeout(LONG)
        page = context.new_page()
        watched = Watched(page)
        page.on("pageerror", lambda error: watched.note(str(error), ""))
        page.on("console", lambda said: watched.note(said.text, said.location["url"]) if said.type == "error" else None)
        opened.append((context, watched))
        page.goto(url + ("?__theme=dark" if dark else "?__theme=light"))
        page.wait_for_selector("#sdtrain_train[data-booted]", state="attached")
        return page

    yield open_one
    for context, _ in opened:
        context.close()
    assert [error for _, watched in opened for error in watched.errors] == []


def draw_subject(folder: Path, count: int = 8) -> Path:
    """Pictures of a blue ball with captions."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = Image.new("RGB", (128 + 8 * number, 128), (220, 220 - 10 * number, 200))
        ImageDraw.Draw(image).ellipse((20 + number, 30, 90 + number, 100), fill=(40, 80, 200))
        image.save(folder / f"ball-{number}.png")
        (folder / f"ball-{number}.txt").write_text(f"a photo of sks ball, number {number}", encoding="utf-8")
    return folder


@dataclass
class Site:
    """A served tab with the fake engine behind it."""

    url: str
    engine: FakeEngine
    folder: Path
    services: Any

    @property
    def runs(self) -> Path:
        """Where its runs are written."""
        return self.folder / "outputs" / "runs"


@contextmanager
def _served(engine: FakeEngine, folder: Path, **options: Any) -> Iterator[Site]:
    server = serve(engine, folder, **options)
    try:
        yield Site(server.url, engine, folder, server.services)
    finally:
        server.services.runner.stop("now")
        server.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The tab standalone, a subject ready, steps slow enough to watch."""
    engine = FakeEngine(str(draw_subject(tmp_path / "subject")), pause=0.05)
    with _served(engine, tmp_path) as served:
        yield served


@pytest.fixture(scope="module")
def live_site(tmp_path_factory) -> Iterator[LiveSite]:
    """A real WebUI with two checkpoints, for the tests of a file."""
    started = LiveSite(Path(FOLDER), tmp_path_factory.mktemp("webui"))
    yield started
    started.stop()
