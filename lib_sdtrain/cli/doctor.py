"""What the environment is, what is wrong with it, and what to do. Must work where nothing else does, so everything
beyond the standard library is tried, not taken for granted."""
from __future__ import annotations

import importlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / ".requirements" / "run.in"
TOYBOX = ROOT / "lib_sdtrain" / "toybox" / "toybox.safetensors"
SET_UP = "run `python install.py demo`, or restart the WebUI so that it runs install.py"
GIGABYTE = 2**30
LITTLE_DISK, NO_DISK = 10 * GIGABYTE, GIGABYTE
# Newer ones fail beside the transformers that the WebUI pins; peft breaks diffusers by merely being there.
WEBUI_TRANSFORMERS = (4, 30)
NEWEST_BESIDE = {"diffusers": (0, 31), "peft": (0, 13)}


@dataclass(frozen=True)
class Finding:
    """Something to mend (`error`: work will fail) or to know (`warning`), and what to do."""

    level: str
    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what}; {self.fix}"


def examine(folder: Path) -> dict[str, Any]:
    """The environment as a JSON-able document. `folder`: where outputs go."""
    packages, device, disk = packages_found(), device_found(), disk_found(folder)
    findings = [
        *python_findings(sys.version_info[:2]), *package_findings(packages), *device_findings(device),
        *disk_findings(disk), *data_findings(),
    ]
    return {
        "ok": not any(finding.level == "error" for finding in findings),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "environment": environment(),
        "packages": packages,
        "device": device,
        "disk": disk,
        "findings": [asdict(finding) for finding in findings],
    }


def report(document: dict[str, Any]) -> str:
    """The document of `examine` for a reader."""
    device, disk = document["device"], document["disk"]
    lines = [f"Python {document['python']} on {document['platform']}, {document['environment']}", device["text"]]
    lines.append(f"{disk['free_bytes'] / GIGABYTE:.0f} GB free for {disk['folder']}")
    lines += [f"  {name:<16} {found['installed'] or 'missing':<14}"
              + ("" if found["installed"] == found["wanted"] else f" (made with {found['wanted']})")
              for name, found in document["packages"].items()]
    lines += [str(Finding(**finding)) for finding in document["findings"]] or ["nothing is wrong"]
    return "\n".join(lines)


def environment() -> str:
    """Whose Python this is."""
    if Path(sys.prefix) == ROOT / ".venv":
        return "the .venv of install.py"
    if (ROOT.parent.parent / "modules" / "launch_utils.py").is_file():
        return "an extension of the WebUI"
    return f"an environment of your own ({sys.prefix})"


def packages_found() -> dict[str, dict[str, str | None]]:
    """For each package that is imported: the installed version, and the one this is made and tested with."""
    return {name: {"installed": installed(name), "wanted": wanted} for name, wanted in wanted_versions().items()}


def wanted_versions() -> dict[str, str]:
    """The pins of the requirements file; of two lines for one package, the one for this Python."""
    newer = sys.version_info >= (3, 11)
    found = {}
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        pin, _, marker = line.partition(" ;")
        if "==" in pin and not pin.startswith("#") and (not marker or (">=" in marker) == newer):
            name, wanted = pin.strip().split("==")
            found[name] = wanted
    return found


def installed(name: str) -> str | None:
    """The version of a distribution without what follows a `+`, or None."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def python_findings(running: tuple[int, int]) -> Iterator[Finding]:
    """Too old is an error, newer than tried is worth knowing."""
    name = f"{running[0]}.{running[1]}"
    if running < (3, 10):
        yield Finding("error", "Python", f"{name} is too old", "use Python 3.10 or 3.11, as the WebUI does")
    elif running > (3, 11):
        yield Finding("warning", "Python", f"{name} is not tested", "use Python 3.10 or 3.11, as the WebUI does")


def package_findings(packages: dict[str, dict[str, str | None]]) -> Iterator[Finding]:
    """Missing packages, and those known to break each other."""
    missing = [name for name, found in packages.items() if found["installed"] is None]
    if missing:
        yield Finding("error", "packages", f"missing: {', '.join(missing)}", SET_UP)
    transformers = installed("transformers")
    if numbers(transformers) != WEBUI_TRANSFORMERS:
        return
    for name, newest in NEWEST_BESIDE.items():
        if numbers(installed(name)) > newest:
            yield Finding("error", name, f"{installed(name)} does not work beside transformers {transformers}",
                          f'pip install "{name}=={newest[0]}.{newest[1]}.*"')


def numbers(text: str | None) -> tuple[int, int]:
    """Major and minor of a version; (0, 0) for none."""
    found = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def device_found() -> dict[str, Any]:
    """What torch will compute on. `error` where torch cannot be imported."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return {"kind": None, "error": str(error), "text": "torch cannot be imported"}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        text = f"{properties.name}, {properties.total_memory / GIGABYTE:.0f} GB, CUDA {torch.version.cuda}"
        return {"kind": "cuda", "name": properties.name, "memory_bytes": properties.total_memory, "text": text}
    if torch.backends.mps.is_available():
        return {"kind": "mps", "text": "Apple's GPU (mps)"}
    threads, nvidia = torch.get_num_threads(), shutil.which("nvidia-smi") is not None
    return {"kind": "cpu", "threads": threads, "text": f"CPU, {threads} threads", "nvidia": nvidia}


def device_findings(device: dict[str, Any]) -> Iterator[Finding]:
    """torch that does not import, and a device that torch does not see."""
    if device["kind"] is None:
        yield Finding("error", "torch", f"cannot be imported: {device['error']}", SET_UP)
    elif device.get("nvidia"):
        yield Finding("warning", "torch", "there is an NVIDIA device, but torch does not see it",
                      "update the driver, or set TORCH_INDEX_URL to pytorch.org's address for your CUDA, delete .venv "
                      "and run install.py again")


def disk_found(folder: Path) -> dict[str, Any]:
    """Room and right to write where outputs go: in the folder, or where it would be made."""
    place = folder.resolve()
    while not place.is_dir():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            writable = True
    except OSError:
        writable = False
    return {"folder": str(folder), "free_bytes": shutil.disk_usage(place).free, "writable": writable}


def disk_findings(disk: dict[str, Any]) -> Iterator[Finding]:
    """Too little room, or no right to write."""
    if not disk["writable"]:
        yield Finding("error", disk["folder"], "cannot be written to", "start from another folder, or change its owner")
    if disk["free_bytes"] < LITTLE_DISK:
        level = "error" if disk["free_bytes"] < NO_DISK else "warning"
        yield Finding(level, disk["folder"], f"{disk['free_bytes'] / GIGABYTE:.1f} GB are free",
                      "make room: each saved SD1 checkpoint takes 2 to 4 GB, an SDXL one 7 to 13 GB")


def data_findings() -> Iterator[Finding]:
    """Files that come with the project or its packages."""
    if not TOYBOX.is_file():
        yield Finding("error", "toybox", f"{TOYBOX} is not there", "get a complete copy of the repository")
    try:
        tokenizer = importlib.import_module("lib_sdtrain.model.tokenizer")
    except ImportError as error:
        yield Finding("error", "tokenizer", f"cannot be imported: {error}", SET_UP)
        return
    from lib_sdtrain.errors import UserError
    try:
        tokenizer.vocabulary_path()
    except UserError as error:
        yield from (Finding("error", problem.where, problem.what, problem.fix) for problem in error.problems)
