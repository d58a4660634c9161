"""A folder with a subject, the fake engine's services on it, and a client of its routes."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.routes import add_routes
from lib_sdtrain.api.services import Services
from lib_sdtrain.host.standalone import StandaloneHost
from tests.fake_engine import FakeEngine

OPEN = SimpleNamespace(auth=None, tokens={})
PRESET = "toybox-dreambooth"


def draw_subject(folder: Path) -> Path:
    """Three small pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def services_in(folder: Path, engine: FakeEngine | None = None, local: bool = True) -> Services:
    """The services of a standalone host in `folder`."""
    engine = engine or FakeEngine(str(draw_subject(folder / "subject")))
    return Services(StandaloneHost(folder, local=local), engine)


def client_of(services: Services, programs: bool = True, access: Access | None = None) -> TestClient:
    """A client of the services' routes."""
    app = FastAPI()
    add_routes(app, services, access or Access(OPEN), programs=programs)
    return TestClient(app)


def run(services: Services, **settings: object) -> str:
    """Train with the preset and settings (`train__length=5`) to the end; the run's name."""
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    job = services.train.start(_choice(changes))
    assert job.done.wait(20)
    return Path(str(job.run_dir)).name


def _choice(changes: dict) -> object:
    from lib_sdtrain.api.choice import Choice

    return Choice(PRESET, changes)
