"""The long forms of test_killed.py and test_soak.py: `python -m tests.faults --kills 200`, `--soak 1000`.

Runs are killed at random moments and at random changes of the file system, several times each, until so many kills
have struck; merges and conversions are killed at every change and at random moments. A soak makes that many short
runs and that many merges in this process and tells what it holds on the way.
"""
from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.faults import crash, soak
from tests.faults.going_on import Kill, remake_through, train_through
from tests.faults.pictures import write_pictures
from tests.faults.work import Conversion, Merge, Training
from tests.tiny import write_tiny

KILLS_A_RUN = 10
SOAK_WARM_UP, SOAK_ROUNDS = 20, 10


def main() -> None:
    """Print how many kills struck, or raise `AssertionError` at the first loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not (given.kills or given.soak):
        parser.error("--kills N or --soak N")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parents = write_tiny(folder / "a.safetensors"), write_tiny(folder / "b.safetensors", seed=1)
        if given.soak:
            soaking(folder, parents, given.soak)
        if given.kills:
            killing(folder, parents, given.kills, random.Random(given.seed))


def soaking(folder: Path, parents: tuple[Path, Path], count: int) -> None:
    """Tell what the process holds ten times on the way; `AssertionError` when it holds more files or threads."""
    works = {"runs": soak.Runs(parents[0], write_pictures(folder / "soaked"), folder / "soak"),
             "merges": soak.Merges(Merge(parents, folder / "soak.safetensors"))}
    for kind, work in works.items():
        each = max(1, count // SOAK_ROUNDS)
        first = None
        for number, held in enumerate(soak.measured(work, SOAK_WARM_UP, each, SOAK_ROUNDS)):
            print(f"{kind}: {SOAK_WARM_UP + number * each}: {held.files} files, {held.threads} threads, "
                  f"{held.maps} maps, {held.objects} objects, {held.resident / 2**20:.0f} MB", flush=True)
            first = first or held
            assert (held.files, held.threads, held.maps) == (first.files, first.threads, first.maps)


def killing(folder: Path, parents: tuple[Path, Path], kills: int, rng: random.Random) -> None:
    """Runs, merges, conversions."""
    training(folder, parents[0], kills, rng)
    again = {"merge": Merge(parents, folder / "merge" / "out.safetensors"),
             "conversion": Conversion(parents[0], folder / "conversion" / "out.safetensors")}
    for kind, work in again.items():
        remaking(kind, work, kills // 2, rng)


def training(folder: Path, checkpoint: Path, wanted: int, rng: random.Random) -> None:
    """Kill runs until `wanted` kills struck."""
    pictures = write_pictures(folder / "pictures")
    straight = Training(checkpoint, pictures, folder / "straight")
    began = time.monotonic()
    changes = crash.run(straight, straight.folder)
    seconds, expected = time.monotonic() - began, straight.results()
    print(f"an undisturbed run: {seconds:.1f} s, {changes} changes of the file system, {len(expected)} files")
    struck = number = 0
    while struck < wanted:
        number += 1
        work = Training(checkpoint, pictures, folder / f"killed-{number}")
        struck += train_through(work, [_kill(rng, changes, seconds) for _ in range(KILLS_A_RUN)], expected)
        print(f"training: {struck} kills in {number} runs, nothing lost", flush=True)


def remaking(kind: str, work: Merge | Conversion, wanted: int, rng: random.Random) -> None:
    """Kill at every change, then at random moments."""
    work.out.parent.mkdir()
    began = time.monotonic()
    changes = crash.run(work, work.out.parent)
    seconds, new = time.monotonic() - began, work.out.read_bytes()
    kills = [Kill(change=change) for change in range(1, changes + 1)]
    kills += [Kill(seconds=rng.uniform(0, seconds)) for _ in range(wanted)]
    print(f"{kind}: {remake_through(work, kills, b'the former file', new)} kills, nothing lost", flush=True)


def _kill(rng: random.Random, changes: int, seconds: float) -> Kill:
    """Early ones, so that a run is killed several times before it comes to its end."""
    if rng.random() < 0.5:
        return Kill(change=rng.randint(1, changes // 3))
    return Kill(seconds=rng.uniform(0, seconds / 2))


if __name__ == "__main__":
    main()
