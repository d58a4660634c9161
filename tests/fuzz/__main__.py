"""Fuzzing guided by coverage: `python -m tests.fuzz TARGET|all --minutes 10` (needs `pip install atheris`).

A finding is written to corpus/TARGET and ends the run; it stays there as a test once it is mended.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
LONGEST_INPUT_SECONDS = 10
MEMORY_MB = 2500


def main() -> None:
    """Each target in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        fuzz(given.target, given.minutes)
        return
    from tests.fuzz.targets import TARGETS

    for name in TARGETS if given.target == "all" else [given.target]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name, "--minutes", str(given.minutes), "--here"],
            check=False, capture_output=True, text=True,
        )
        lines = done.stderr.splitlines()
        told = [line for line in lines if line.startswith(("Done", "stat::", "==")) or "Error" in line]
        print(f"{name}: {'no finding' if done.returncode == 0 else 'FOUND'}", *told[-3:], sep="\n  ", flush=True)


def fuzz(name: str, minutes: float) -> None:
    """Feed one target until the time is over or something breaks."""
    import atheris

    with atheris.instrument_imports(include=["lib_sdtrain"]):
        from tests.fuzz import seeds, targets

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds.seeds_of(name)):
            (Path(folder) / str(number)).write_bytes(seed)
        found = CORPUS / name
        found.mkdir(parents=True, exist_ok=True)
        atheris.Setup(
            [sys.argv[0], folder, f"-max_total_time={round(minutes * 60)}", f"-artifact_prefix={found}/",
             f"-timeout={LONGEST_INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1",
             "-max_len=4096"],
            lambda content: targets.survive(name, content),
        )  # fmt: skip
        atheris.Fuzz()


if __name__ == "__main__":
    main()
