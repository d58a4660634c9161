"""Hostile and odd pickles: nothing of a file's choosing may run."""
import argparse
import io
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.model.unpickle import unpickle


class Exploit:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save(path, document, zipped):
    torch.save(document, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["value", "beside", "optimizer"])
@pytest.mark.fault("what it wanted to run; it is not run")
def test_a_pickle_that_runs_a_program_is_refused_by_name_and_not_run(tmp_path, zipped, place):
    marker = tmp_path / "executed"
    document = {"state_dict": {"a": torch.ones(1)}, "optimizer": {}}
    target = {"value": document["state_dict"], "beside": document, "optimizer": document["optimizer"]}[place]
    target["x"] = Exploit(os.system, f"touch '{marker}'")
    path = save(tmp_path / "a.ckpt", document, zipped)
    with pytest.raises(UserError, match=rf"{os.system.__module__}\.system"):
        open_tensors(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the exploit itself does not work, so this test proves nothing"


@pytest.mark.parametrize(
    ("exploit", "name"),
    [
        (Exploit(eval, "1"), "builtins.eval"),
        (Exploit(getattr, torch.float32, "itemsize"), "builtins.getattr"),
        (Exploit(__import__, "os"), "builtins.__import__"),
        (Exploit(torch.load, "x"), "torch.serialization.load"),
        (Exploit(torch.hub.load, "x", "y"), "torch.hub.load"),
        (Exploit(Path.unlink, Path("x")), "pathlib.Path.unlink"),
        (Exploit(pickle.loads, b""), "_pickle.loads"),
    ],
)
def test_ways_to_reach_code_are_refused(exploit, name):
    data = pickle.dumps(exploit, protocol=4)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        unpickle(io.BytesIO(data))


SHARED = ["torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage", "collections\nOrderedDict"]


@pytest.mark.parametrize("name", SHARED)
def test_a_pickle_cannot_change_what_it_may_name(name):
    """BUILD on a shared object would set its attributes for every later file of the process."""
    data = b"c" + name.encode() + b"\n}S'__call__'\nI1\nsb."
    with pytest.raises(UserError, match="damaged"):
        unpickle(io.BytesIO(data))


@pytest.mark.parametrize("name", ["numpy\ndtype", "pytorch_lightning.callbacks\nModelCheckpoint"])
def test_a_pickle_cannot_change_a_stand_in_class(name):
    with pytest.raises(UserError, match="damaged"):
        unpickle(io.BytesIO(b"c" + name.encode() + b"\n}S'__init__'\nI1\nsb."))


def test_a_forged_tensor_cannot_reach_outside_its_storage(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(4)}, path)
    forged = tmp_path / "b.ckpt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(forged, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("data.pkl"):  # shape (4,) -> (127,)
                assert data.count(b"K\x04\x85") == 1
                data = data.replace(b"K\x04\x85", b"K\x7f\x85")
            target.writestr(info.filename, data)
    with pytest.raises(UserError, match="too early"):
        open_tensors(forged)


@pytest.mark.parametrize("slot", [b"r\xff\xff\xff\x1f", b"p536870911\n"])
@pytest.mark.fault("a refusal")
def test_a_pickle_cannot_fill_the_memory(slot):
    """Reserving half a billion memo slots would take 8 GB before anything else is looked at."""
    with pytest.raises(UserError, match="memo slot 536870911"):
        unpickle(io.BytesIO(b"\x80\x02N" + slot + b"."))


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as source, zipfile.ZipFile(tmp_path / "b.ckpt", "w", 8) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    with pytest.raises(UserError, match="compressed"):
        open_tensors(tmp_path / "b.ckpt")


def test_a_zip_that_is_no_model_and_a_foreign_pickle_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="not a model"):
        open_tensors(tmp_path / "a.ckpt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="not written by torch"):
        open_tensors(tmp_path / "b.pt")


def test_a_torchscript_program_is_named(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "a.pt"))
    with pytest.raises(UserError, match="TorchScript"):
        open_tensors(tmp_path / "a.pt")


@pytest.fixture
def lightning(monkeypatch):
    """Classes as Lightning names them: their pickles must be read where Lightning is not installed."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    ran = []

    class ModelCheckpoint:
        def __init__(self, **state):
            self.__dict__.update(state)

        def __setstate__(self, state):
            ran.append(state)

    class AttributeDict(dict):
        pass

    for cls in (ModelCheckpoint, AttributeDict):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module, ran


@pytest.mark.parametrize("zipped", [True, False])
def test_lightnings_extra_objects_are_inert(tmp_path, lightning, zipped):
    module, ran = lightning
    document = {
        "callbacks": {module.ModelCheckpoint: {"best": np.float64(0.25), "score": torch.tensor(0.5)}},
        "hyper_parameters": module.AttributeDict(lr=1e-4, nested=argparse.Namespace(a=1)),
        "loops": {"object": module.ModelCheckpoint(a=1), "range": np.arange(3)},
        "state_dict": {"a": torch.ones(2)},
        "lr": np.float32(0.5),
        "names": {"b", "a"},
    }
    path = save(tmp_path / "a.ckpt", document, zipped)
    sys.modules.pop("pytorch_lightning.callbacks.model_checkpoint")
    with open_tensors(path) as found:
        assert found.keys() == ["a"]
        assert found.tensor("a").tolist() == [1, 1]
    assert ran == []


def test_numpy_numbers_are_read_as_numbers():
    for value in (np.float64(0.1), np.float32(0.5), np.int64(-3), np.bool_(True), np.uint8(200)):
        read, _ = unpickle(io.BytesIO(pickle.dumps(value, protocol=2)))
        assert read == value.item()
        assert type(read) is type(value.item())


def test_reading_does_not_call_torchs_own_loading(tmp_path, monkeypatch):
    path = save(tmp_path / "a.ckpt", {"a": torch.ones(2)}, zipped=True)

    def forbidden(*_args, **_kwargs):
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", forbidden)
    with open_tensors(path) as found:
        assert found.tensor("a").tolist() == [1, 1]
