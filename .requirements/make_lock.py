"""Write run.txt and test.txt, the complete pins of 3.10 and 3.11, from run.in and test.in.

    python .requirements/make_lock.py python3.10 python3.11

Each interpreter's pip (23 or newer, on Linux) resolves the .in files without installing anything. torch and the CUDA
packages it brings on Linux are left out: they differ from machine to machine, so install.py lets pip resolve those.
"""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NO_DEPENDENCIES = "open-clip-torch"
PER_MACHINE = ("torch", "triton", "cuda-", "nvidia-")
ON_WINDOWS = {"colorama": "0.4.6"}
MARKERS = {"3.10": 'python_version < "3.11"', "3.11": 'python_version >= "3.11"'}


def resolve(python: str, *names: str) -> dict[str, str]:
    """Every distribution that `names` (.in files) need with this interpreter, as name -> version."""
    with tempfile.TemporaryDirectory() as folder:
        report, wanted = Path(folder, "report.json"), Path(folder, "wanted.in")
        lines = [line for name in names for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
        wanted.write_text("\n".join(line for line in lines if not line.startswith(NO_DEPENDENCIES)), encoding="utf-8")
        command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
                   "--report", str(report), "--requirement", str(wanted)]
        subprocess.run(command, check=True)
        found = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {item["name"]: item["version"] for item in found if not is_per_machine(item["name"])}


def is_per_machine(name: str) -> bool:
    return any(name == start or (start.endswith("-") and name.startswith(start)) for start in PER_MACHINE)


def lines_of(per_python: dict[str, dict[str, str]]) -> list[str]:
    """One requirement a line; a marker where the interpreters differ."""
    lines = [f'{name}=={version} ; sys_platform == "win32"' for name, version in ON_WINDOWS.items()]
    for name in {name for found in per_python.values() for name in found}:
        versions = {python: found.get(name) for python, found in per_python.items()}
        if len(set(versions.values())) == 1:
            lines.append(f"{name}=={versions['3.10']}")
        else:
            lines += [f"{name}=={version} ; {MARKERS[python]}" for python, version in versions.items() if version]
    return sorted(lines, key=str.lower)


def main(python310: str, python311: str) -> None:
    pythons = {"3.10": python310, "3.11": python311}
    run = {version: resolve(python, "run.in") for version, python in pythons.items()}
    everything = {version: resolve(python, "run.in", "test.in") for version, python in pythons.items()}
    pinned = [line for line in (HERE / "run.in").read_text(encoding="utf-8").splitlines()
              if line.startswith(NO_DEPENDENCIES)]
    test = {version: {name: number for name, number in everything[version].items() if name not in run[version]}
            for version in pythons}
    for version in pythons:
        moved = {name for name, number in run[version].items() if everything[version][name] != number}
        if moved:
            sys.exit(f"{version}: test.in would change {sorted(moved)}; pin them in run.in")
    head = "# Made by make_lock.py; edit the .in file instead."
    write("run.txt", [head, *sorted([*lines_of(run), *pinned], key=str.lower)])
    windows = {f'{name}=={version} ; sys_platform == "win32"' for name, version in ON_WINDOWS.items()}
    write("test.txt", [head, *(line for line in lines_of(test) if line not in windows)])


def write(name: str, lines: list[str]) -> None:
    (HERE / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
