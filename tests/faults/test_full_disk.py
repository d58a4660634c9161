"""A disk that another program fills while a run goes on: the run says so, waits, and goes on to the same files."""
from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from lib_sdtrain.events import CancelToken, Finished, Notice, Phase, Step
from lib_sdtrain.model.space import DiskFullError
from lib_sdtrain.train import loop, room
from tests.faults.pictures import write_pictures
from tests.faults.work import Training
from tests.tiny import write_tiny


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(loop, "check_disk", lambda plan, run: None)  # there was room when it began
    checkpoint = write_tiny(tmp_path / "parent.safetensors")
    return Training(checkpoint, write_pictures(tmp_path / "pictures"), tmp_path / "straight", steps=4)


def fill(folder):
    free = os.statvfs(folder)
    with suppress(OSError):  # a state that is being written takes its share meanwhile
        (folder / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize))


@pytest.mark.fault("a notice with the bytes needed; training goes on by itself when there is room")
def test_a_run_waits_for_room_and_writes_what_it_would_have_written(work, small_disk):
    folder = small_disk("250m")
    list(work.events())
    paused = replace(work, folder=folder)
    waited = 0
    for event in paused.events():
        if (isinstance(event, Phase) and event.name == "loading model" and event.done) or isinstance(event, Step):
            fill(folder)
        if isinstance(event, Phase) and event.name == room.WAITING:
            waited += 1
            (folder / "filler").unlink(missing_ok=True)
        if isinstance(event, Notice) and "disk is full" in event.text:
            assert event.where.startswith(str(folder))
    assert isinstance(event, Finished)
    assert waited  # class pictures, states, checkpoints: as many as the disk was full when they came
    assert paused.results() == work.results()
    log = (paused.run / "events.jsonl").read_text()
    assert log.count('"type": "step"') == work.steps
    assert "the disk is full" in log


def test_whoever_stops_at_once_is_not_kept_waiting(tmp_path):
    token = CancelToken()

    def write():
        raise DiskFullError(28, "no room")

    with closing(room.with_room(write, tmp_path, token)) as events:
        assert isinstance(next(events), Notice)
        token.stop_now()
        with pytest.raises(DiskFullError):
            next(events)
