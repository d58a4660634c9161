"""A real WebUI with this extension, in a data folder of its own, so that nothing of the installation is touched."""
from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib_sdtrain.host.clip_folder import adopt
from tests.tiny import write_tiny

REPOSITORY = Path(__file__).parents[2]
FOLDER = os.environ.get("SDTRAIN_WEBUI", "")
SHOTS = os.environ.get("SDTRAIN_SHOTS", "")
"""Where screenshots are kept, if anywhere."""
WEBUI_MARKS = [
    pytest.mark.browser, pytest.mark.webui,
    pytest.mark.skipif(not FOLDER, reason="SDTRAIN_WEBUI=<folder of an installed WebUI> is not set"),
]  # fmt: skip
FLAGS = (
    "--skip-prepare-environment", "--skip-install", "--skip-version-check", "--skip-python-version-check",
    "--skip-torch-cuda-test", "--no-half", "--no-half-vae", "--precision", "full", "--use-cpu", "all", "--api",
    "--no-download-sd-model", "--disable-nan-check",
)  # fmt: skip
START_SECONDS = 300


@dataclass
class Webui:
    """A started WebUI."""

    url: str
    data: Path
    process: subprocess.Popen
    log: Path

    @property
    def models(self) -> Path:
        """Its checkpoint folder."""
        return self.data / "models" / "Stable-diffusion"

    def get(self, path: str) -> Any:
        """GET JSON."""
        with urllib.request.urlopen(self.url + path, timeout=120) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any = None) -> Any:
        """POST JSON."""
        data = json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read()  # what is wrong is in the body, which who asks may read again
            message = f"{error.msg}: {said.decode(errors='replace')}"
            raise urllib.error.HTTPError(error.url, error.code, message, error.headers, io.BytesIO(said)) from error


def prepare_data(data: Path, extension: Path = REPOSITORY) -> None:
    """A data folder with the extension, the probe and one small checkpoint; `extension` is where the first is."""
    models = data / "models" / "Stable-diffusion"
    probe = data / "extensions" / "zz-probe" / "scripts"
    models.mkdir(parents=True)
    probe.mkdir(parents=True)
    (data / "extensions" / "sd-train").symlink_to(extension)
    (probe / "probe.py").write_text((Path(__file__).parent / "probe.py").read_text("utf-8"), "utf-8")
    adopt(write_tiny(models / "tiny.safetensors"), data / "models" / "clip")


def start(folder: Path, data: Path, *flags: str, python_path: str = "") -> Webui:
    """Start and wait until it answers and has loaded its model; `python_path` is searched for modules first."""
    python = folder / "venv" / "bin" / "python"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = data / "webui.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = python_path  # the tests' own must not reach it
    command = [str(python if python.exists() else sys.executable), "launch.py", *FLAGS, *flags]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--data-dir", str(data)], cwd=folder, env=environment,
        stdout=log.open("w"), stderr=subprocess.STDOUT,
    )
    webui = Webui(f"http://127.0.0.1:{port}", data, process, log)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        said = log.read_text("utf-8", "replace")
        # asking earlier would start its server before it has added its own middleware, which it does not survive
        if "Model loaded" in said and "Startup time" in said:
            return webui
        time.sleep(0.3)
    process.kill()
    raise AssertionError("the WebUI did not start:\n" + log.read_text("utf-8", "replace")[-4000:])
