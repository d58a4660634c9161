"""An environment and a pip made of a few files, so that install.py's doings are seen without a network."""
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Records every call with the constraints it was given; FAKE_PIP_FAILS: what to complain of.
FAKE_PIP = '''
import json, os, sys
arguments = sys.argv[1:]
constraints = [open(arguments[i + 1]).read() for i, word in enumerate(arguments) if word == "--constraint"]
with open(os.environ["FAKE_PIP_LOG"], "a") as log:
    log.write(json.dumps({"arguments": arguments, "constraints": constraints}) + "\\n")
if os.environ.get("FAKE_PIP_FAILS"):
    sys.exit("WARNING: retrying\\n" + os.environ["FAKE_PIP_FAILS"])
'''


@pytest.fixture
def install():
    """install.py as a fresh module."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Environment:
    """A Python without packages, and a folder on its path to which distributions and a fake pip can be added."""

    def __init__(self, folder: Path):
        venv.create(folder / "env", with_pip=False, symlinks=os.name == "posix")
        self.python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.packages, self.webui, self.log = folder / "packages", folder / "webui", folder / "pip.log"
        (self.packages / "pip").mkdir(parents=True)
        (self.packages / "pip" / "__init__.py").touch()
        (self.packages / "pip" / "__main__.py").write_text(FAKE_PIP, encoding="utf-8")
        (self.webui / "modules").mkdir(parents=True)
        (self.webui / "modules" / "launch_utils.py").touch()
        (self.webui / "launch.py").write_text("raise AssertionError('slow to import, and not needed')\n")

    def has(self, **versions: str) -> None:
        for name, version in versions.items():
            add_distribution(self.packages, name, version)

    def launch(self, *arguments: str, inside: bool = True, **variables: str) -> subprocess.CompletedProcess:
        """install.py as the WebUI's launcher calls it: the WebUI's folder is the working directory and on the path."""
        path = os.pathsep.join([*([str(self.webui)] if inside else []), str(self.packages)])
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "HOME", "TMPDIR")}
        return subprocess.run([self.python, ROOT / "install.py", *arguments], cwd=self.webui, text=True,
                              capture_output=True, timeout=60, check=False,
                              env={**kept, "PYTHONPATH": path, "FAKE_PIP_LOG": str(self.log), **variables})

    def pip_calls(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def add_distribution(folder: Path, name: str, version: str) -> Path:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return info


@pytest.fixture
def environment(tmp_path) -> Environment:
    return Environment(tmp_path)


@pytest.fixture
def webui_environment(environment, install) -> Environment:
    """Everything but diffusers is there, with versions that are not ours."""
    wanted = install.requirements(install.DIRECT["run"])
    environment.has(**{name.replace("-", "_"): "1.2.3" for name in wanted if name not in ("torch", "diffusers")})
    environment.has(torch="2.1.2+cu121")
    return environment


@pytest.fixture(scope="session")
def other_pythons() -> list[str]:
    """Interpreters of this machine, 3.8 or newer, that SD Train does not support."""
    found = [f"python3.{minor}" for minor in (8, 9, 12, 13, 14)]
    check = "import sys; sys.exit(sys.version_info < (3, 8) or sys.version_info[:2] in ((3, 10), (3, 11)))"
    roots = [Path(sys.base_prefix).parent.glob("3.*/bin/python")] if os.name == "posix" else []
    return [str(name) for name in [*found, *(path for root in roots for path in root)] if runs(str(name), check)]


def runs(python: str, code: str) -> bool:
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False
