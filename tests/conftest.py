"""Fixtures that many tests share."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models are slower, not faster, on more threads

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from lib_sdtrain.train import allocator
from tests.tiny import write_tiny

settings.register_profile("untimed", deadline=None, derandomize=True)  # the same examples on every machine
settings.load_profile("untimed")


def pytest_configure():
    """On CI pytest would tell every line in which two files of megabytes differ: that takes hours."""
    for name in ("CI", "BUILD_NUMBER"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def _own_allocator():
    """Commands that tests run in their own process may not tune it: it would never give memory back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocator, "keep_freed_memory", lambda: False)
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A random SD1 checkpoint of every block, about 7 MB. Tests must not change it."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture
def picture_folder(tmp_path):
    """A function that makes a folder of `count` different small pictures."""

    def make(name: str, count: int, size: tuple[int, int] = (80, 64)) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(count):
            rng = np.random.default_rng([index, *name.encode()])
            small = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{index}.png")
        return folder

    return make


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of a size (`1m`) and gives its folder; skips where one may not mount."""
    mounted = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        try:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
        except FileNotFoundError:
            done = None
        if done is None or done.returncode:
            pytest.skip("mounting a small file system needs root on Linux")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
