"""Hashes against hashlib by hand, and the cache."""
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from lib_sdtrain.model.hashes import HashCache, addnet_hash, autov2, legacy_hash, sha256

DATA = bytes(range(256)) * 4096 * 2 + b"tail"  # a little over 2 MiB, different on both sides of 1 MiB + 64 KiB


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    return path


def test_sha256_and_its_short_form(file):
    expected = hashlib.sha256(DATA).hexdigest()
    assert sha256(file) == expected
    assert autov2(expected) == expected[:10]


def test_progress_reaches_the_end_and_may_stop(file):
    seen = []
    sha256(file, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sha256(file, stop)


def test_legacy_hash_looks_at_64_kib_at_1_mib(file, tmp_path):
    assert legacy_hash(file) == hashlib.sha256(DATA[0x100000:0x110000]).hexdigest()[:8]
    (tmp_path / "small").write_bytes(b"x")
    assert legacy_hash(tmp_path / "small") == "e3b0c442"  # SHA-256 of nothing


def test_addnet_hash_ignores_the_metadata(tmp_path):
    tensors = {"lora_up": torch.arange(10.0)}
    for name, metadata in (("a", {"x": "1"}), ("b", {"x": "something longer"})):
        save_file(tensors, tmp_path / name, metadata=metadata)
    data = save(tensors)
    start = 8 + int.from_bytes(data[:8], "little")
    expected = hashlib.sha256(data[start:]).hexdigest()
    assert addnet_hash(tmp_path / "a") == addnet_hash(tmp_path / "b") == expected


def test_the_cache_answers_without_reading_until_the_file_changes(file, tmp_path):
    cache = HashCache(tmp_path / "cache" / "hashes.json")
    assert cache.get(file) is None
    first = cache.sha256(file)
    assert first == hashlib.sha256(DATA).hexdigest()
    assert cache.sha256(file, progress=lambda *_: pytest.fail("hashed again")) == first
    assert HashCache(cache.location).get(file) == first
    file.write_bytes(DATA[:-1] + b"!")
    os.utime(file, ns=(1, 1))
    assert cache.get(file) is None
    assert cache.sha256(file) == hashlib.sha256(DATA[:-1] + b"!").hexdigest()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b'{"%s": {"sha256": 5}}'])
def test_a_damaged_cache_only_costs_time(file, tmp_path, damage):
    cache = HashCache(tmp_path / "hashes.json")
    cache.location.write_bytes(damage.replace(b"%s", str(file).encode()))
    assert cache.sha256(file) == hashlib.sha256(DATA).hexdigest()
    assert cache.get(file) is not None


def test_two_caches_on_one_file_keep_each_others_digests(tmp_path):
    one, two = HashCache(tmp_path / "hashes.json"), HashCache(tmp_path / "hashes.json")
    for name, cache in (("a", one), ("b", two), ("c", one)):
        (tmp_path / name).write_bytes(name.encode())
        cache.sha256(tmp_path / name)
    assert len(json.loads(one.location.read_bytes())) == 3


def test_processes_hashing_at_once_leave_a_readable_cache(tmp_path):
    script = (
        "import sys; from pathlib import Path; from lib_sdtrain.model.hashes import HashCache\n"
        "cache = HashCache(sys.argv[1])\n"
        "for n in range(20):\n"
        "    path = Path(sys.argv[1]).with_name(f'{sys.argv[2]}-{n}'); path.write_text(str(n)); cache.sha256(path)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / "hashes.json")]
    running = [subprocess.Popen([*command, name], cwd=root) for name in ("a", "b")]
    assert [process.wait() for process in running] == [0, 0]
    table = json.loads((tmp_path / "hashes.json").read_bytes())
    assert len(table) >= 20
    for name, entry in table.items():
        assert entry["sha256"] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    assert not list(tmp_path.glob(".*"))


def test_a_cache_that_cannot_be_written_only_means_hashing_again(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    cache = HashCache(tmp_path / "file" / "no folder" / "hashes.json")
    assert cache.sha256(tmp_path / "file") == sha256(tmp_path / "file")
    assert cache.get(tmp_path / "file") is None
