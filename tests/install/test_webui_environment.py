"""The launcher's call in an environment with the WebUI's pins, with the real pip: packages are added, none changed."""
from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.install.conftest import ROOT, add_distribution

PINS = ROOT / "tests" / "data" / "webui-1.10.1-pins.txt"
# What the WebUI's packages bring along and diffusers needs, too; newer ones than those are on the index.
BROUGHT = {
    "certifi": "2024.2.2", "charset-normalizer": "3.3.2", "filelock": "3.13.1", "fsspec": "2024.2.0", "ftfy": "6.1.3",
    "huggingface-hub": "0.23.4", "idna": "3.6", "packaging": "23.2", "PyYAML": "6.0.1", "regex": "2023.12.25",
    "requests": "2.31.0", "scipy": "1.12.0", "tokenizers": "0.13.3", "tqdm": "4.66.1", "trampoline": "0.1.2",
    "typing_extensions": "4.9.0", "urllib3": "2.2.0", "wcwidth": "0.2.13",
}


@pytest.fixture(scope="module")
def webui(tmp_path_factory) -> Path:
    """A WebUI's folder with its `venv`; skipped where no package index answers."""
    folder = tmp_path_factory.mktemp("webui")
    (folder / "modules").mkdir()
    (folder / "modules" / "launch_utils.py").touch()
    (folder / "launch.py").touch()
    venv.create(folder / "venv", with_pip=True, symlinks=os.name == "posix")
    pins = [f"{name}=={version}" for name, version in BROUGHT.items()]
    done = pip(folder, "install", "--quiet", "--no-compile", "--no-deps", "--requirement", PINS, *pins)
    if done.returncode:
        pytest.skip(f"the WebUI's packages cannot be installed here: {done.stderr.splitlines()[-1]}")
    site_packages = next((folder / "venv").rglob("site-packages"))
    add_distribution(site_packages, "torch", "2.1.2+cu121")       # its entry alone is what pip looks at
    return folder


def python(folder: Path) -> Path:
    return folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip(folder: Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([python(folder), "-m", "pip", "--disable-pip-version-check", *arguments],
                          capture_output=True, text=True, check=False)


def freeze(folder: Path) -> set[str]:
    return set(pip(folder, "freeze", "--all").stdout.splitlines())


def launch(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}", **variables}
    return subprocess.run([python(folder), ROOT / "install.py"], cwd=folder, env=environment, text=True,
                          capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] not in ((3, 10), (3, 11)), reason="the WebUI's pins are for 3.10 and 3.11")
def test_packages_are_added_and_none_is_changed(webui):
    before = freeze(webui)
    assert {"torch==2.1.2+cu121", "transformers==4.30.2", "gradio==3.41.2", "numpy==1.26.2"} <= before

    offline = launch(webui, PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    assert (offline.returncode, offline.stderr, len(offline.stdout.splitlines())) == (0, "", 1)
    assert offline.stdout.startswith("SD Train: could not install diffusers 0.31.0")
    assert freeze(webui) == before

    online = launch(webui)
    after = freeze(webui)
    assert (online.returncode, online.stderr) == (0, "")
    assert before < after
    names = {line.partition("==")[0] for line in after - before}
    assert "diffusers==0.31.0" in after
    assert not names & {line.partition("==")[0] for line in before}
    assert online.stdout.startswith("SD Train: added ")
    assert {name in online.stdout for name in names} == {True}

    satisfied = launch(webui, PIP_NO_INDEX="1")
    assert (satisfied.returncode, satisfied.stdout, satisfied.stderr) == (0, "", "")
    assert freeze(webui) == after
