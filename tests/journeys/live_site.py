"""A WebUI with two checkpoints that differ everywhere, and live merges in it by its HTTP routes."""
from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_sdtrain.host.clip_folder import adopt
from lib_sdtrain.model.writer import write_checkpoint
from tests.journeys import installed_webui
from tests.journeys.installed_webui import Webui
from tests.journeys.steps import LONG
from tests.tiny import ldm_yaml, random_tensors, tiny_family

HALF = [0.5] * 26
IN04 = 5
BODY = {"prompt": "a ball", "steps": 2, "width": 64, "height": 64, "seed": 1, "sampler_name": "Euler"}


def write_other(path: Path, seed: int = 1) -> Path:
    """A checkpoint of tiny's kind with all its weights moved a little."""
    family = tiny_family()
    generator = torch.Generator().manual_seed(seed)
    tensors = random_tensors(family)
    for key, value in tensors.items():
        if value.dtype == torch.float16:
            tensors[key] = (value.float() + 0.05 * torch.randn(value.shape, generator=generator)).half()
    return write_checkpoint(path, tensors, {"format": "pt"}, ldm_yaml(family)).path


class LiveSite:
    """tiny.safetensors is loaded, two.safetensors is beside it."""

    def __init__(self, folder: Path, data: Path, *flags: str) -> None:
        installed_webui.prepare_data(data)
        self.models = data / "models" / "Stable-diffusion"
        adopt(write_other(self.models / "two.safetensors"), data / "models" / "clip")
        self.webui: Webui = installed_webui.start(folder, data, *flags)
        self.options(sd_model_checkpoint="tiny.safetensors", CLIP_stop_at_last_layers=1, samples_save=False)

    def stop(self) -> None:
        """End the process."""
        self.webui.process.kill()
        self.webui.process.wait()

    def options(self, **values: Any) -> None:
        """Change settings of the WebUI, as its own page does."""
        self.webui.post("/sdapi/v1/options", values)

    def picture(self, **more: Any) -> tuple[bytes, str]:
        """The pixels of a picture (as PNG) and its infotext, without what a PNG of it carries besides."""
        answer = self.webui.post("/sdapi/v1/txt2img", self.body(more))
        return self.pixels_of(answer, 0), json.loads(answer["info"])["infotexts"][0]

    @staticmethod
    def body(more: dict[str, Any]) -> dict[str, Any]:
        """A small request with some things changed."""
        return {**BODY, **more}

    @staticmethod
    def pixels_of(answer: dict[str, Any], index: int) -> bytes:
        """The pixels of one of an answer's pictures."""
        return Image.open(io.BytesIO(base64.b64decode(answer["images"][index]))).tobytes()

    def weights(self) -> str:
        """The hash of all the loaded model's tensors."""
        return self.webui.get("/probe/state")["weights"]

    def state(self) -> dict[str, Any]:
        """What the WebUI says of live merges, once it is at rest."""
        until = time.monotonic() + LONG / 1000
        while time.monotonic() < until:
            state = self.webui.get("/sdtrain/v1/live")
            if state["state"] in ("on", "off"):
                return state
            time.sleep(0.05)
        raise AssertionError("the live merge never came to rest")

    def show(self, weights: list[float], **more: Any) -> dict[str, Any]:
        """Merge two into the loaded tiny."""
        form = {
            "a": str(self.models / "tiny.safetensors"), "b": str(self.models / "two.safetensors"),
            "method": "weighted_sum", "weights_alpha": ",".join(map(str, weights)), **more,
        }  # fmt: skip
        self.webui.post("/sdtrain/v1/live", form)
        return self.state()

    def wait_job(self) -> None:
        """Until the job that was started has ended well."""
        until = time.monotonic() + LONG / 1000
        while time.monotonic() < until:
            job = self.webui.get("/sdtrain/v1/job")["job"]
            if job and job["state"] in ("finished", "failed", "stopped"):
                assert job["state"] == "finished", job["events"][-1]
                return
            time.sleep(0.05)
        raise AssertionError("the job never ended")

    def wait_file(self, name: str) -> None:
        """Until there is a checkpoint of this name and the job that wrote it has ended well."""
        until = time.monotonic() + LONG / 1000
        while not (self.models / name).exists():
            assert time.monotonic() < until, f"{name} never came"
            time.sleep(0.05)
        self.wait_job()

    def memory(self) -> int:
        """Bytes that the WebUI's process holds."""
        status = Path(f"/proc/{self.webui.process.pid}/status").read_text("utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def revert(self) -> dict[str, Any]:
        """The loaded model's own weights."""
        self.webui.post("/sdtrain/v1/live/revert")
        return self.state()


def reload_ui(page: Any) -> None:
    """The WebUI's own Reload UI, until the page is back."""
    page.locator("#footer a", has_text="Reload UI").click()
    page.wait_for_function("() => !document.querySelector('#sdtrain_train[data-booted]')", timeout=LONG)
    page.wait_for_selector("#sdtrain_train[data-booted]", state="attached", timeout=LONG)


def moved(index: int, value: float, weights: list[float] = HALF) -> list[float]:
    """The weights with one of them changed."""
    return [value if place == index else weight for place, weight in enumerate(weights)]
