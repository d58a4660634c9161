"""Killed at any moment, nothing is lost: the run goes on to the very files it would have written undisturbed."""
from __future__ import annotations

import random

import pytest

from tests.faults import crash
from tests.faults.going_on import Kill, remake_through, train_through
from tests.faults.pictures import write_pictures
from tests.faults.work import Conversion, Merge, Training
from tests.tiny import write_tiny

KILLS = 5
"""`python -m tests.faults` makes hundreds of them."""


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parents")
    return write_tiny(folder / "a.safetensors"), write_tiny(folder / "b.safetensors", seed=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.mark.fault(
    "`train --resume`, or Go on in Runs, continues at the last saved "
    "state; every file ends the same, bit for bit"
)
def test_a_run_that_is_killed_again_and_again_writes_the_same_files(tmp_path, parents, pictures):
    straight = Training(parents[0], pictures, tmp_path / "straight")
    changes = crash.run(straight, straight.folder)
    rng = random.Random(1)
    kills = [Kill(change=rng.randint(1, changes // 3)) for _ in range(KILLS)]
    killed = Training(parents[0], pictures, tmp_path / "killed")
    assert train_through(killed, kills, straight.results()) > KILLS // 2


@pytest.mark.parametrize("kind", ["merge", "conversion"])
@pytest.mark.fault("the file that stood there, or the finished new one")
def test_a_killed_merge_or_conversion_leaves_the_old_file_or_the_new_one(tmp_path, parents, kind):
    work = Merge(parents, tmp_path / "out.safetensors") if kind == "merge" else Conversion(
        parents[0], tmp_path / "out.safetensors")
    changes = crash.run(work, tmp_path)
    new = work.out.read_bytes()
    kills = [Kill(change=number) for number in range(1, changes + 1)]
    assert remake_through(work, kills, b"the former file", new) == len(kills)
