"""The short form of `python -m tests.faults --soak N`."""
from __future__ import annotations

import pytest

from tests.faults.pictures import write_pictures
from tests.faults.soak import Merges, Runs, measured
from tests.faults.work import Merge
from tests.tiny import write_tiny

COUNT, WARM_UP = 20, 4  # each kind of run comes up once in four
MOST_OBJECTS, MOST_BLOCKS = 1, 150
"""A piece of work may leave less than one object, on average, and 150 pieces of memory of some dozen bytes, of the
hundreds of thousands that it makes. They are spread thin: tracemalloc shows no line that keeps three a run."""


@pytest.fixture
def parents(tmp_path):
    return write_tiny(tmp_path / "a.safetensors"), write_tiny(tmp_path / "b.safetensors", seed=1)


@pytest.mark.parametrize("kind", ["runs", "merges"])
@pytest.mark.fault("that many runs and merges in one WebUI leave no open file, no thread and no memory")
def test_many_of_them_leave_nothing_behind(tmp_path, parents, kind):
    if kind == "runs":
        work = Runs(parents[0], write_pictures(tmp_path / "pictures"), tmp_path / "outputs")
    else:
        work = Merges(Merge(parents, tmp_path / "out.safetensors"))
    before, after = measured(work, WARM_UP, COUNT)
    assert (after.files, after.threads, after.maps) == (before.files, before.threads, before.maps)
    assert after.system_threads <= before.system_threads
    assert (after.objects - before.objects) / COUNT < MOST_OBJECTS
    assert (after.blocks - before.blocks) / COUNT < MOST_BLOCKS
