"""The writer of model files: the library's bytes, all or nothing."""
import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save

from lib_sdtrain.errors import UserError
from lib_sdtrain.model import space, writer
from lib_sdtrain.model.space import DiskFullError, check_space
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.model.writer import CheckpointWriter, file_size, write_checkpoint

ROOT = Path(__file__).parents[2]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64,
          torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]  # fmt: skip


TEXT = st.characters(exclude_categories=["Cs"])  # surrogates are no text

SHAPES = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3))


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {f"{n % 3}.w{n}": (torch.randn(3, 7, generator=generator) * 9).to(d) for n, d in enumerate(DTYPES)}
    made |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "ids": torch.arange(77)[None]}
    return made


def specs(table):
    return {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in table.items()}


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=8),
    names=st.lists(st.text(TEXT, min_size=1, max_size=6), min_size=8, max_size=8, unique=True),
    note=st.text(TEXT, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_writes_the_bytes_that_the_library_writes(tmp_path_factory, shapes, names, note):
    table = {name: torch.ones(shape).to(dtype) for name, (dtype, shape) in zip(names, shapes, strict=False)}
    out = tmp_path_factory.mktemp("w") / "a.safetensors"
    written = write_checkpoint(out, table, {"note": note})
    expected = save(table, {"note": note})
    assert out.read_bytes() == expected
    assert written.sha256 == hashlib.sha256(expected).hexdigest()
    assert written.size == len(expected) == file_size(specs(table), {"note": note})


def test_metadata_is_sorted_and_read_by_the_library(tmp_path):
    metadata = {"b": "2", "a": '{"x": "ü\\n"}', "format": "pt"}
    write_checkpoint(tmp_path / "a.safetensors", tensors(), metadata)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == metadata
    for key, value in load_file(tmp_path / "a.safetensors").items():
        assert torch.equal(value.view(-1).view(torch.uint8), tensors()[key].view(-1).view(torch.uint8)), key
    write_checkpoint(tmp_path / "b.safetensors", tensors(), dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_any_order_pieces_and_threads_give_the_same_file(tmp_path):
    table = {f"k{n}": torch.randn(50, generator=torch.Generator().manual_seed(n)) for n in range(40)}
    expected = write_checkpoint(tmp_path / "a.safetensors", table, {}).sha256

    def write(writer, keys):
        for key in keys:
            data = table[key].numpy().tobytes()
            writer.write_raw(key, data[80:], start=80)
            writer.write_raw(key, data[:80])

    with CheckpointWriter(tmp_path / "b.safetensors", specs(table), {}) as target:
        backwards = list(reversed(target.keys))
        threads = [threading.Thread(target=write, args=(target, backwards[part::2])) for part in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert target.result.sha256 == expected
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_the_callers_memory_may_change_right_after_write(tmp_path):
    table = {f"k{n}": torch.full((2**18,), float(n)) for n in range(8)}
    scratch = torch.empty(2**18)
    with CheckpointWriter(tmp_path / "a.safetensors", specs(table), {}) as target:
        for key in target.keys:
            target.write(key, scratch.copy_(table[key]))
            scratch.zero_()
    data = (tmp_path / "a.safetensors").read_bytes()
    assert data == save(table)
    assert target.result.sha256 == hashlib.sha256(data).hexdigest()


def test_strided_tensors_and_parameters_are_written_in_row_order(tmp_path):
    table = {"t": torch.arange(6.0).reshape(2, 3).t(), "p": torch.nn.Parameter(torch.ones(2))}
    write_checkpoint(tmp_path / "a.safetensors", table, {})
    read = load_file(tmp_path / "a.safetensors")
    assert read["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read["p"].tolist() == [1, 1]


MISTAKES = {
    "dtype": lambda target: target.write("a", torch.zeros(2, dtype=torch.float16)),
    "shape": lambda target: target.write("a", torch.zeros(1, 2)),
    "too many bytes": lambda target: target.write_raw("a", bytes(5), start=4),
    "before its start": lambda target: target.write_raw("a", bytes(4), start=-4),
    "part missing": lambda target: target.write_raw("a", bytes(4)),
    "missing": lambda target: None,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_tensor_that_does_not_fit_its_announcement_leaves_nothing(tmp_path, mistake):
    target = CheckpointWriter(tmp_path / "a.safetensors", {"a": (torch.float32, (2,))}, {})
    with pytest.raises(ValueError, match="a"), target:
        MISTAKES[mistake](target)
    assert listing(tmp_path) == []
    with pytest.raises(ValueError, match="not written"):
        _ = target.result


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match="complex64"):
        write_checkpoint(tmp_path / "a.safetensors", {"a": torch.zeros(1, dtype=torch.complex64)}, {})


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_midway_leaves_the_former_file(tmp_path, stop):
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"former")
    table = tensors()

    def write_one_and_stop():
        with CheckpointWriter(out, specs(table), {}, "yaml") as target:
            target.write(target.keys[0], table[target.keys[0]])
            raise stop

    with pytest.raises(stop):
        write_one_and_stop()
    assert out.read_bytes() == b"former"
    assert listing(tmp_path) == ["a.safetensors"]


@pytest.mark.fault("the former file; the remains go with a later save")
def test_a_killed_writer_leaves_the_former_file_and_its_remains_go_later(tmp_path):
    out = tmp_path / "a[1].safetensors"
    out.write_bytes(b"former")
    script = (
        "import sys, time, torch; from lib_sdtrain.model.writer import CheckpointWriter\n"
        "with CheckpointWriter(sys.argv[1], {'a': (torch.float32, (9,)), 'b': (torch.float32, (9,))}, {}) as w:\n"
        "    w.write('a', torch.zeros(9)); print('half', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(out)], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
    assert out.read_bytes() == b"former"
    remains = [path for path in tmp_path.iterdir() if path != out]
    assert [path.suffix for path in remains] == [".tmp"]
    write_checkpoint(out, tensors(), {})
    assert remains[0].exists(), "a writer at work elsewhere must not lose its file"
    yesterday = time.time() - 25 * 3600
    os.utime(remains[0], (yesterday, yesterday))
    write_checkpoint(out, tensors(), {})
    assert listing(tmp_path) == [out.name]


def test_the_yaml_stands_before_the_weights(tmp_path, monkeypatch):
    order = []
    replace = Path.replace

    def noted(self, target):
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    write_checkpoint(tmp_path / "my.model.safetensors", tensors(), {}, "model: {}\n")
    assert order == ["my.model.yaml", "my.model.safetensors"]
    assert (tmp_path / "my.model.yaml").read_text() == "model: {}\n"


@pytest.mark.parametrize("former", [None, "old"])
def test_a_yaml_is_put_back_when_the_weights_cannot_take_their_name(tmp_path, monkeypatch, former):
    side = tmp_path / "a.yaml"
    if former:
        side.write_text(former)
    replace = Path.replace

    def locked(self, target):
        if Path(target).suffix == ".safetensors":
            raise PermissionError(errno.EACCES, "the file is in use")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", locked)
    with pytest.raises(PermissionError):
        write_checkpoint(tmp_path / "a.safetensors", tensors(), {}, "new")
    assert listing(tmp_path) == (["a.yaml"] if former else [])
    assert not former or side.read_text() == "old"


def test_a_yaml_of_the_overwritten_checkpoint_goes_with_it_but_a_waiting_one_stays(tmp_path):
    (tmp_path / "a.yaml").write_text("waiting")
    write_checkpoint(tmp_path / "a.safetensors", tensors(), {})
    assert listing(tmp_path) == ["a.safetensors", "a.yaml"]
    write_checkpoint(tmp_path / "a.safetensors", tensors(), {})
    assert listing(tmp_path) == ["a.safetensors"]


def test_folders_are_made_and_a_folder_in_the_way_is_named(tmp_path):
    write_checkpoint(tmp_path / "new" / "folder" / "a.safetensors", tensors(), {})
    with pytest.raises(UserError, match="folder"):
        write_checkpoint(tmp_path / "new", tensors(), {})


def test_overwriting_the_file_that_is_being_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, tensors(), {"old": "1"})
    with open_tensors(path) as source:
        table = {key: source.tensor(key) for key in source.keys()}  # noqa: SIM118
        write_checkpoint(path, table, {"new": "1"})
        assert torch.equal(source.tensor("ids"), tensors()["ids"])
    assert path.read_bytes() == save(tensors(), {"new": "1"})


@pytest.mark.fault("one line with the bytes needed and free")
def test_too_little_space_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 1000)
    out = tmp_path / "a.safetensors"
    with pytest.raises(DiskFullError, match=r"40,104 bytes needed, 1,000 free") as caught:
        write_checkpoint(out, {"a": torch.zeros(10_000)}, {"format": "pt"})
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(UserError, match=r"2,000 bytes needed, 1,000 free"):
        check_space(out, 2000)
    check_space(out, 1000)
    assert listing(tmp_path) == []


class FullDisk(io.FileIO):
    """Takes 100 bytes, then reports a full disk as the system does."""

    def write(self, data):
        room = 100 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


def test_a_disk_that_runs_full_midway_is_named_and_leaves_the_former_file(tmp_path, monkeypatch):
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"former")
    opened = Path.open

    def open_full(self, mode="r", **options):
        return FullDisk(self, "x+") if mode == "xb" else opened(self, mode, **options)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(DiskFullError, match="bytes needed"):
        write_checkpoint(out, tensors(), {})
    assert out.read_bytes() == b"former"
    assert listing(tmp_path) == ["a.safetensors"]


@pytest.mark.fault("the same line; the former file is untouched")
def test_on_a_really_full_disk_nothing_half_written_stands(small_disk, monkeypatch):
    out = small_disk("1m") / "a.safetensors"
    write_checkpoint(out, {"a": torch.zeros(1000)}, {})
    before = out.read_bytes()
    table = {"a": torch.zeros(2**18 + 1)}
    with pytest.raises(DiskFullError):
        write_checkpoint(out, table, {})
    monkeypatch.setattr(space, "free_bytes", lambda folder: 2**30)  # what another program takes meanwhile
    with pytest.raises(DiskFullError):
        write_checkpoint(out, table, {})
    assert out.read_bytes() == before
    assert listing(out.parent) == ["a.safetensors"]


@pytest.mark.fault('"reads back different from what was written: the disk may be failing"; the former file stays')
def test_reading_back_finds_a_disk_that_changes_what_is_written(tmp_path, monkeypatch):
    table = tensors()
    with CheckpointWriter(tmp_path / "a.safetensors", specs(table), {}, verify=True) as target:
        for key in target.keys:
            target.write(key, table[key])
    assert (tmp_path / "a.safetensors").read_bytes() == save(table)
    monkeypatch.setattr(writer, "sha256", lambda path: "0" * 64)
    target = CheckpointWriter(tmp_path / "b.safetensors", {"a": (torch.uint8, (1,))}, {}, verify=True)
    with pytest.raises(OSError, match="reads back different"), target:
        target.write_raw("a", b"x")
    assert listing(tmp_path) == ["a.safetensors"]
