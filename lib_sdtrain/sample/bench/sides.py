"""The two processes that are asked in turn: ours over a pipe, the WebUI over its API."""
from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import JobFailed, UserError

PATIENCE = 300  # seconds for the WebUI to start
_FLAGS = (
    "--skip-prepare-environment", "--skip-install", "--skip-version-check", "--skip-python-version-check",
    "--skip-torch-cuda-test", "--no-half", "--no-half-vae", "--precision", "full", "--use-cpu", "all", "--api",
    "--nowebui", "--no-download-sd-model", "--disable-nan-check", "--no-hashing",
)


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock and of processor, and the process's anonymous memory after it, in bytes."""

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True)
class Side:
    """A running process and how to ask it."""

    process: subprocess.Popen[str]
    ask: Callable[[Mapping[str, Any]], None]

    def cost(self, body: Mapping[str, Any]) -> Cost:
        """What one request costs."""
        began, used = time.perf_counter(), _processor(self.process.pid)
        self.ask(body)
        seconds = time.perf_counter() - began
        return Cost(seconds, _processor(self.process.pid) - used, _anonymous(self.process.pid))

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def our_side(checkpoint: str) -> Side:
    """Our process, its model loaded. Raises `JobFailed` when it does not start."""
    command = [sys.executable, "-m", "lib_sdtrain.sample.bench.ours", checkpoint]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        if not process.stdout.readline():
            raise JobFailed("our process ended early", where="bench sample", fix="see its words above")

    def ask(body: Mapping[str, Any]) -> None:
        process.stdin.write(json.dumps(body) + "\n")
        process.stdin.flush()
        read()

    read()
    return Side(process, ask)


def webui_side(webui: Path, checkpoint: Path, data: Path) -> Side:
    """The WebUI of a folder with a data folder of its own, ready to be asked.

    Raises `UserError` when it is no WebUI, `JobFailed` when it does not start.
    """
    places = (webui / "venv/bin/python", webui / "venv/Scripts/python.exe")
    python = next((path for path in places if path.exists()), None)
    if python is None or not (webui / "launch.py").exists():
        raise UserError("this is not an installed WebUI", where="--webui", fix="give the folder with launch.py")
    models = data / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    for path in (checkpoint, checkpoint.with_suffix(".yaml")):
        if path.exists():
            (models / path.name).symlink_to(path.resolve())
    port = _free_port()
    command = [str(python), "launch.py", *_FLAGS, "--port", str(port), "--data-dir", str(data),
               "--ckpt", str(models / checkpoint.name)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with (data / "webui.log").open("w") as log:
        process = subprocess.Popen(command, cwd=webui, env=environment, stdout=log, stderr=log, text=True)
    side = Side(process, lambda body: _post(port, "/sdapi/v1/txt2img", body, data / "webui.log"))
    _wait(side, port, data / "webui.log")
    _post(port, "/sdapi/v1/options", {"live_previews_enable": False, "samples_save": False}, data / "webui.log")
    return side


def _wait(side: Side, port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and side.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    side.close()
    raise JobFailed("the WebUI did not start", where="bench sample", fix=_end_of(log))


def _post(port: int, path: str, body: Mapping[str, Any], log: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    with closing(connection):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode("utf-8", "replace")
    if answer.status != http.client.OK:
        raise JobFailed(f"the WebUI answered {answer.status}: {said[:300]}", where=path, fix=_end_of(log))


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-800:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _processor(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
