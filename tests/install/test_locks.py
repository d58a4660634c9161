"""The pinned versions agree with each other and with the WebUI's."""
from __future__ import annotations

import ast
import re

import pytest

from tests.install.conftest import ROOT

PYTHONS = ((3, 10), (3, 11))


def pins(install, monkeypatch, path, python=(3, 11), platform="linux") -> dict[str, str]:
    monkeypatch.setattr(install, "MARKERS", {
        "": True, 'python_version < "3.11"': python < (3, 11), 'python_version >= "3.11"': python >= (3, 11),
        'sys_platform == "win32"': platform == "win32"})
    return {install.normalised(name): version for name, version in install.requirements(path).items()}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("kind", ["run", "test"])
def test_the_lock_holds_every_direct_requirement_as_pinned(install, monkeypatch, kind, python):
    direct = pins(install, monkeypatch, install.DIRECT[kind], python)
    lock = pins(install, monkeypatch, install.LOCKS[kind], python)
    direct.pop("torch", None)       # it brings other packages on every machine, so pip resolves it there
    assert direct
    assert {name: lock.get(name) for name in direct} == direct


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_do_not_contradict_each_other(install, monkeypatch, python):
    run, test = (pins(install, monkeypatch, install.LOCKS[kind], python) for kind in ("run", "test"))
    assert not set(run) & set(test)


def test_what_the_webui_pins_too_is_pinned_as_there(install, monkeypatch):
    webui = pins(install, monkeypatch, ROOT / "tests" / "data" / "webui-1.10.1-pins.txt")
    ours = pins(install, monkeypatch, install.LOCKS["run"])
    both = set(webui) & set(ours) - {"setuptools"}      # 69.5.1 there; torch 2.13 asks for a newer one
    assert {"gradio", "transformers", "safetensors", "numpy", "pillow", "accelerate", "fastapi", "httpx"} <= both
    assert {name: ours[name] for name in both} == {name: re.sub(r"^0\.15$", "0.15.0", webui[name]) for name in both}


def test_no_package_of_one_machine_is_locked(install):
    text = install.LOCKS["run"].read_text(encoding="utf-8")
    assert not re.search(r"^(torch|triton|nvidia-|cuda-)[\w-]*==", text.replace("torchsde==", ""), re.MULTILINE)


def test_an_old_python_gets_as_far_as_the_message():
    ast.parse((ROOT / "install.py").read_text(encoding="utf-8"), feature_version=(3, 8))
