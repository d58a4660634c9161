"""States are written while training goes on: nothing of them may differ, get lost or stay unsaid because of that."""
from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_sdtrain import train
from lib_sdtrain.events import CancelToken, Finished, Notice, Phase, Saved, Step, Stopped
from lib_sdtrain.model import space, writer
from lib_sdtrain.model.space import DiskFullError
from lib_sdtrain.train import outputs, room, spare_memory, state_writer
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.state import State, newest_state, open_state, save_state
from lib_sdtrain.train.state_writer import StateWriter
from tests.train.runs import finish, of_kind, run_settings


@pytest.fixture
def settings(tiny_checkpoint, picture_folder):
    return run_settings(tiny_checkpoint, picture_folder("i", 2), train__length=6, save__state_every=2)


class Gate:
    """Lets the writing of states begin only when told; counts how many are at it."""

    def __init__(self):
        self.open, self.at_work, self.most = threading.Event(), 0, 0

    def __call__(self, folder, step, state):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        assert self.open.wait(60)
        path = save_state(folder, step, state)
        self.at_work -= 1
        return path


@pytest.fixture
def gate(monkeypatch):
    found = Gate()
    monkeypatch.setattr(state_writer, "save_state", found)
    yield found
    found.open.set()


def weights(value: float) -> State:
    return State({"step": 0}, {"w": torch.full((4,), value), "n": torch.tensor(value)})


def states_in(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "state").iterdir())


def test_training_goes_on_while_a_state_is_written_and_the_next_one_waits_for_it(settings, gate, tmp_path):
    told = []
    for event in train(settings, run_dir=tmp_path / "run"):
        told.append(event)
        if isinstance(event, Step) and event.step == 4:
            assert not of_kind(told, Saved), "the state of step 2 cannot stand yet"
            gate.open.set()
    assert [(saved.step, Path(saved.file).name) for saved in of_kind(told, Saved) if saved.kind == "state"] == [
        (2, "000002"), (4, "000004"), (6, "000006")]
    assert gate.most == 1
    assert states_in(tmp_path / "run") == ["000006"]


def test_a_state_written_late_is_that_of_its_own_step(settings, gate, tmp_path):
    alone = replace(settings, save=replace(settings.save, state_every=None))
    gate.open.set()
    straight = finish(train(alone, run_dir=tmp_path / "straight"))[-1].result
    gate.open.clear()
    token = CancelToken()
    for event in train(settings, token, run_dir=tmp_path / "run"):
        if isinstance(event, Step) and event.step == 3:
            gate.open.set()
            token.stop_now()
    assert isinstance(event, Stopped)
    assert event.saved
    assert newest_state(tmp_path / "run" / "state").facts["step"] == 2
    assert finish(resume(tmp_path / "run"))[-1].result["sha256"] == straight["sha256"]


def test_what_keeps_a_state_from_the_disk_ends_the_run_and_the_former_one_stays(settings, tmp_path, monkeypatch):
    right = writer.sha256
    seen = []

    def failing(path):
        seen.append(path)
        return right(path) if len(seen) == 1 else "0" * 64

    monkeypatch.setattr(writer, "sha256", failing)
    told = []
    with pytest.raises(OSError, match="reads back different"):
        told.extend(train(settings, run_dir=tmp_path / "run"))
    assert states_in(tmp_path / "run") == ["000002"]
    monkeypatch.undo()
    assert isinstance(finish(resume(tmp_path / "run"))[-1], Finished)


@pytest.mark.fault("a notice with the bytes needed, before anything is written; training goes on when there is room")
def test_room_for_a_state_and_a_checkpoint_is_looked_for_before_each_save(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "POLL_SECONDS", 0.001)
    run, free = tmp_path / "run", [10**12]
    told, waited = [], []
    monkeypatch.setattr(space, "free_bytes", lambda folder: free[0])
    monkeypatch.setattr(room, "free_bytes", lambda folder: free[0])
    for event in train(settings, run_dir=run):
        told.append(event)
        before_a_state = isinstance(event, Step) and event.step == 2
        if before_a_state or (isinstance(event, Saved) and event.step == 6 and event.kind == "state"):
            free[0] = 2_000_000
        if isinstance(event, Phase) and event.name == room.WAITING:
            waited.append(event.total)
            assert not list(run.glob("**/*.tmp")), "nothing may be begun"
            free[0] = 10**12
    assert isinstance(event, Finished)
    texts = [notice.text for notice in of_kind(told, Notice)]
    assert ["paused: the disk is full" in text for text in texts] == [True, True]
    assert waited[0] > waited[1] > 2  # in MB: weights and moments in fp32, then a checkpoint in fp16


@pytest.mark.parametrize("when", ["beside training", "at the end"])
def test_a_disk_that_runs_full_while_a_state_is_written_pauses_the_run(settings, tmp_path, monkeypatch, when):
    monkeypatch.setattr(room, "POLL_SECONDS", 0.001)
    failed = []

    def full_once(folder, step, state):
        if step == (2 if when == "beside training" else 6) and not failed:
            failed.append(step)
            raise DiskFullError(errno.ENOSPC, "no room")
        return save_state(folder, step, state)

    monkeypatch.setattr(state_writer, "save_state", full_once)
    told = finish(train(settings, run_dir=tmp_path / "run"))
    assert len(failed) == 1
    assert [saved.step for saved in of_kind(told, Saved) if saved.kind == "state"] == [2, 4, 6]
    assert "paused: the disk is full" in of_kind(told, Notice)[0].text


def test_without_memory_for_a_copy_training_waits_and_says_so_once(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(state_writer, "spare_memory", lambda: 1000)
    told = finish(train(settings, run_dir=tmp_path / "run"))
    assert [notice.text for notice in of_kind(told, Notice)] == [outputs.NO_COPY]
    order = [(event.type, event.step) for event in told if isinstance(event, (Saved, Step))]
    assert order.index(("saved", 2)) < order.index(("step", 3))
    copied = finish(train(settings, run_dir=tmp_path / "other"))
    assert copied[-1].result["sha256"] == told[-1].result["sha256"]


def test_one_copy_is_kept_however_often_states_are_written(tmp_path):
    states, first = StateWriter(tmp_path), weights(1.0)
    states.begin(1, first, copy=True)
    first.tensors["w"].fill_(7)
    assert open_state(states.finish()).load().tensors["w"].tolist() == [1.0] * 4
    before = {name: value.data_ptr() for name, value in states._copies.items()}
    states.begin(2, weights(2.0), copy=True)
    assert open_state(states.finish()).load().tensors["n"].item() == 2.0
    assert {name: value.data_ptr() for name, value in states._copies.items()} == before
    states.close()


def test_the_former_state_stays_until_the_new_one_reads_back(tmp_path, monkeypatch):
    save_state(tmp_path, 1, weights(1.0))
    monkeypatch.setattr(writer, "sha256", lambda path: "0" * 64)
    with pytest.raises(OSError, match="reads back different"):
        save_state(tmp_path, 2, weights(2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    assert newest_state(tmp_path).load().tensors["w"].tolist() == [1.0] * 4


def test_spare_memory_knows_the_limit_of_a_container(tmp_path):
    assert spare_memory.spare_memory(tmp_path) > 2**20
    files = {"memory.max": "5000\n", "memory.current": "4000\n", "memory.stat": "anon 1\ninactive_file 600\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert spare_memory.spare_memory(tmp_path) == 1600
    (tmp_path / "memory.max").write_text("max\n")
    assert spare_memory.spare_memory(tmp_path) > 2**20
