"""Ask an installed WebUI 1.10.1 for the references of test_parity_own.py.

    python -m tests.sample.make_parity_own WEBUI_FOLDER

Every `tests/data/parity-own/NAME.json` needs a `request` (a body of /sdapi/v1/txt2img); the infotexts in it, the
latents (NAME.npz) and the pictures (NAME.0.png ...) are written anew. Settings that one request changes would stay
for the next on a new installation, so every request names all of them.
"""
from __future__ import annotations

import base64
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from lib_sdtrain.settings.sample import OPTION_FIELDS, SampleOptions, SampleRequest
from tests.sample.random_models import DATA, tensors

OWN, PORT = DATA.with_name("parity-own"), 7971
FLAGS = ("--skip-prepare-environment", "--skip-install", "--skip-version-check", "--skip-python-version-check",
         "--skip-torch-cuda-test", "--no-half", "--no-half-vae", "--precision", "full", "--use-cpu", "all", "--api",
         "--no-download-sd-model", "--disable-nan-check")
PROBE = '''
import base64, io
import numpy as np
from modules import processing, script_callbacks
CALLS, real = [], processing.decode_latent_batch

def decode(model, batch, *args, **options):
    CALLS.append(batch.detach().float().cpu().numpy().copy())
    return real(model, batch, *args, **options)

def started(demo, app):
    def take():
        out = io.BytesIO()
        np.savez(out, *CALLS)
        CALLS.clear()
        return {"data": base64.b64encode(out.getvalue()).decode()}
    app.add_api_route("/capture", take, methods=["GET"])

processing.decode_latent_batch = decode
script_callbacks.on_app_started(started)
'''


def ask(method: str, path: str, body: object = None) -> dict:
    """An answer of the WebUI."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=3600)
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != http.client.OK:
        message = f"{path}: {text[:500]!r}"
        raise RuntimeError(message)
    return json.loads(text)


def prepare(data: Path) -> None:
    """A data folder with the model, the LoRA, the embeddings and the probe."""
    models = data / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    save_file(tensors("tiny-sd1"), str(models / "Stable-diffusion/tiny-sd1.safetensors"))
    shutil.copy(DATA / "tiny-sd1.yaml", models / "Stable-diffusion")
    (models / "Lora").mkdir()
    shutil.copy(DATA / "tinylora.safetensors", models / "Lora")
    shutil.copytree(DATA / "embeddings", data / "embeddings")
    (data / "extensions/capture/scripts").mkdir(parents=True)
    (data / "extensions/capture/scripts/capture.py").write_text(PROBE, encoding="utf-8")


def defaults() -> dict[str, object]:
    """Every setting at its default."""
    plain, options = SampleRequest(), SampleOptions()
    named = {own: getattr(plain, name) for own, name in OPTION_FIELDS.items()}
    return {name: value for name, value in vars(options).items() if value is not None} | named


def write(name: str, request: dict) -> None:
    """Draw one request and write what came of it."""
    ask("GET", "/capture")
    body = {**request, "override_settings": defaults() | request.get("override_settings", {})}
    answer = ask("POST", "/sdapi/v1/txt2img", body)
    taken = np.load(io.BytesIO(base64.b64decode(ask("GET", "/capture")["data"])))
    calls = [taken[key] for key in taken.files]
    twice = body.get("enable_hr") and not body.get("hr_upscaler", "Latent").startswith("Latent")
    latents = np.concatenate(calls[1::2] if twice else calls)  # such a second pass decodes the first one's too
    np.savez_compressed(OWN / f"{name}.npz", latents=latents)
    for index, picture in enumerate(answer["images"][-len(latents):]):
        (OWN / f"{name}.{index}.png").write_bytes(base64.b64decode(picture))
    infotexts = json.loads(answer["info"])["infotexts"][-len(latents):]
    text = json.dumps({"request": request, "infotexts": infotexts}, ensure_ascii=False)
    (OWN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Start the WebUI, ask it for everything, stop it."""
    webui = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        prepare(data)
        command = [str(webui / "venv/bin/python"), "launch.py", *FLAGS, "--port", str(PORT), "--data-dir", folder]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        log = (data / "log").open("w")
        with log, subprocess.Popen(command, cwd=webui, env=environment, stdout=log) as process:
            while "Startup time" not in (data / "log").read_text():
                time.sleep(1)
            ask("POST", "/sdapi/v1/options", {"live_previews_enable": False, "samples_save": False})
            for path in sorted(OWN.glob("*.json")):
                write(path.stem, json.loads(path.read_text("utf-8"))["request"])
            process.terminate()


if __name__ == "__main__":
    main()
