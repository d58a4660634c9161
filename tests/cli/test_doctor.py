"""`doctor` says what is wrong with an environment and what to do."""
from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib_sdtrain.cli import doctor
from lib_sdtrain.cli.main import main

GOOD_DISK = {"folder": "outputs", "free_bytes": 100 * doctor.GIGABYTE, "writable": True}


@pytest.fixture
def versions(monkeypatch):
    """Pretended versions of installed packages; the others as they are."""
    pretended = {}
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: pretended[name] if name in pretended else real(name))
    return pretended


def whats(findings) -> list[tuple[str, str]]:
    return [(finding.level, finding.where) for finding in findings]


def test_the_environment_of_the_tests_is_well(tmp_path, capsys):
    assert main(["doctor", "--json", "--out", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert [found for found in document["findings"] if found["level"] == "error"] == []
    assert document["packages"]["transformers"] == {"installed": "4.30.2", "wanted": "4.30.2"}
    assert document["device"]["kind"] in ("cpu", "cuda", "mps")


def test_every_finding_says_where_what_and_what_to_do(capsys, monkeypatch, versions, tmp_path):
    versions.update(diffusers=None, scipy=None)
    monkeypatch.setattr(doctor, "TOYBOX", tmp_path / "toybox.safetensors")
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error:")]
    assert lines[0].startswith("error: packages: missing: scipy, diffusers; run `python install.py")
    assert lines[1].startswith("error: toybox: ")
    assert len(lines) == 2


@pytest.mark.parametrize(("name", "version", "expected"), [
    ("diffusers", "0.31.0", []), ("diffusers", "0.32.0", [("error", "diffusers")]), ("diffusers", "0.30.3", []),
    ("peft", "0.13.2", []), ("peft", "0.14.0", [("error", "peft")]), ("peft", None, []),
])
def test_packages_that_break_beside_the_webuis_are_named(versions, name, version, expected):
    versions.update({"transformers": "4.30.2", "peft": None, name: version})
    assert whats(doctor.package_findings(doctor.packages_found())) == expected


def test_newer_packages_are_fine_beside_newer_transformers(versions):
    versions.update(transformers="4.46.1", diffusers="0.35.0", peft="0.17.0")
    assert whats(doctor.package_findings(doctor.packages_found())) == []


@pytest.mark.parametrize(("minor", "levels"), [(9, ["error"]), (10, []), (11, []), (12, ["warning"])])
def test_pythons_that_are_too_old_or_untested_are_named(minor, levels):
    assert [finding.level for finding in doctor.python_findings((3, minor))] == levels


@pytest.mark.parametrize(("changed", "expected"), [
    ({}, []),
    ({"free_bytes": 5 * doctor.GIGABYTE}, ["warning"]),
    ({"free_bytes": doctor.GIGABYTE // 2}, ["error"]),
    ({"writable": False}, ["error"]),
    ({"writable": False, "free_bytes": 0}, ["error", "error"]),
])
def test_a_full_or_locked_disk_is_named(changed, expected):
    assert [finding.level for finding in doctor.disk_findings({**GOOD_DISK, **changed})] == expected


def test_the_disk_is_looked_at_where_a_folder_would_be_made(tmp_path):
    found = doctor.disk_found(tmp_path / "not" / "there" / "yet")
    assert found["writable"] is True
    assert found["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_torch_does_not_see_is_named(monkeypatch):
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False), get_num_threads=lambda: 1,
                            backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)))
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: torch)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    finding, = doctor.device_findings(doctor.device_found())
    assert finding.level == "warning"
    assert "TORCH_INDEX_URL" in finding.fix


def test_it_works_where_nothing_is_installed(tmp_path):
    """In a Python with no package at all: the place where a doctor is needed most."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=sys.platform != "win32")
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = subprocess.run([python, "-m", "lib_sdtrain", "doctor", "--json", "--out", tmp_path], text=True,
                          cwd=Path(doctor.ROOT), capture_output=True, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert {found["where"] for found in document["findings"]} >= {"packages", "torch", "tokenizer"}
    assert document["packages"]["diffusers"]["installed"] is None
