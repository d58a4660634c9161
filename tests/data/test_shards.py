"""The cache on disk: exact, checked, and no more than one file to lose."""
import os
import signal

import pytest
import torch

from lib_sdtrain.data.latents import rounded
from lib_sdtrain.data.shards import SHARD_ENTRIES, DamagedShard, ShardStore, pack, unpack


def tensor(seed, dtype=torch.float16):
    return torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "fp16"), (torch.float32, "fp32")])
def test_what_is_unpacked_is_what_was_packed(dtype, name):
    value = tensor(1, dtype)
    value[0, 0, 0] = float("inf")
    assert torch.equal(unpack(pack(value), name, value.shape), value)


def test_entries_come_back_at_once_after_a_flush_and_from_a_lost_index(tmp_path):
    store = ShardStore(tmp_path)
    for seed in range(SHARD_ENTRIES + 5):
        store.put(f"n{seed}", tensor(seed))
    assert "n3" in store
    assert torch.equal(store.get(f"n{SHARD_ENTRIES + 1}"), tensor(SHARD_ENTRIES + 1))     # not on disk yet
    store.close()
    assert len(list(tmp_path.glob("*.shard"))) == 2
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    store = ShardStore(tmp_path)
    assert torch.equal(store.get("n3"), tensor(3))
    assert torch.equal(store.get(f"n{SHARD_ENTRIES + 4}"), tensor(SHARD_ENTRIES + 4))
    assert store.get("other") is None
    assert "other" not in store


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "gone"])
def test_a_damaged_shard_is_found_named_and_forgotten(tmp_path, harm):
    store = ShardStore(tmp_path)
    store.put("a", tensor(1))
    store.flush()
    store.put("b", tensor(2))
    store.close()
    store = ShardStore(tmp_path)
    shard = tmp_path / store._file_of("a")
    content = shard.read_bytes()
    if harm == "gone":
        shard.unlink()
    else:
        changed = {"cut": content[:-20], "flip": bytes([content[0] ^ 1]) + content[1:], "empty": b""}[harm]
        shard.write_bytes(changed)
    found = dict(store.check(["a", "b"]))
    assert found.pop(shard.name) is False
    assert list(found.values()) == [True]
    if harm == "gone":  # another process may have forgotten it
        assert store.get("a") is None
    elif harm == "flip":
        with pytest.raises(DamagedShard, match=shard.name):
            store.get("a")
    store.drop(shard.name)
    assert store.get("a") is None
    assert torch.equal(store.get("b"), tensor(2))


def test_a_shard_that_cannot_be_read_at_all_is_named_when_its_index_is_lost(tmp_path):
    store = ShardStore(tmp_path)
    store.put("a", tensor(1))
    store.close()
    (shard,) = tmp_path.glob("*.shard")
    shard.write_bytes(shard.read_bytes()[:10])
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    store = ShardStore(tmp_path)
    assert store.damaged == [shard.name]
    assert "a" not in store


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.fault("encoding goes on where it was")
def test_a_killed_process_loses_at_most_one_shard(tmp_path):
    entries = 3 * SHARD_ENTRIES + 100
    child = os.fork()
    if not child:
        store = ShardStore(tmp_path)
        for number in range(entries):
            store.put(f"n{number}", torch.full((2, 2, 2), number % 1000, dtype=torch.float16))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    store = ShardStore(tmp_path)
    kept = [number for number in range(entries) if f"n{number}" in store]
    assert kept == list(range(3 * SHARD_ENTRIES))
    assert all(store.get(f"n{number}")[0, 0, 0] == number % 1000 for number in kept[::50])


def test_moments_are_rounded_to_sixteenths_of_an_octave():
    moments = torch.cat([torch.tensor([1.0001, -3.0]), torch.tensor([0.013, 2**-20])]).reshape(4, 1, 1)
    mean, deviation = rounded(moments).float().chunk(2)
    assert mean.flatten().tolist() == [1.0, -3.0]
    assert float(deviation[0]) == pytest.approx(0.013, rel=0.023)
    assert float(deviation[1]) == 2**-20
