"""The tab's own server."""
from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Step
from lib_sdtrain.ui.standalone import scripts, serve
from tests.fake_engine import FakeEngine


@pytest.fixture
def server(tmp_path):
    started = serve(FakeEngine(), tmp_path)
    yield started
    started.close()


def get(server, path: str, **headers: str):
    return urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers), timeout=60)


def test_it_serves_the_page_and_its_scripts(server):
    assert b"gradio" in get(server, "").read()
    for path in scripts():
        assert get(server, f"sdtrain/v1/script/{path.name}").read() == path.read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "..%2fREADME.md", "%2e%2e/scripts/sdtrain.py"])
def test_it_serves_no_other_file_as_a_script(server, name):
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(server, f"sdtrain/v1/script/{name}")
    assert refused.value.code == 404


@pytest.mark.parametrize("path", ["", "config", "sdtrain/v1/job"])
def test_no_other_site_may_read_it(server, path):
    answer = get(server, path, Origin="https://evil.example")
    assert "access-control-allow-origin" not in {name.lower() for name in answer.headers}


def test_a_port_that_is_taken_is_told(server, tmp_path):
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(UserError, match="choose another"):
        serve(FakeEngine(), tmp_path, port=port)


def test_closing_saves_a_running_job(tmp_path):
    subject = tmp_path / "subject"
    subject.mkdir()
    from PIL import Image

    Image.new("RGB", (64, 64)).save(subject / "a.png")
    server = serve(FakeEngine(str(subject), pause=0.05), tmp_path, api=True)
    body = json.dumps({"preset": "toybox-dreambooth"}).encode()
    request = urllib.request.Request(server.url + "sdtrain/v1/train", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60)
    job = server.services.runner.job
    until = time.monotonic() + 30
    while not any(isinstance(event, Step) for _, event in job.log.since(0)) and time.monotonic() < until:
        time.sleep(0.02)  # before the first step there is nothing to save
    server.close()
    assert server.services.runner.job.state == "stopped"
    assert list((tmp_path / "outputs" / "runs").glob("*/state/*/step.json"))
