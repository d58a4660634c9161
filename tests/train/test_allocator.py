"""Freed memory goes back to the system where glibc has kept it."""
from __future__ import annotations

import subprocess
import sys

import pytest

# 200 MB in pieces too small for a mapping of their own, the last of which is still in use
KEPT = """
import ctypes, gc, sys
from lib_sdtrain.train.allocator import give_freed_memory_back
def resident():
    return int(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0]) // 1024
pieces = [bytearray(100_000) for _ in range(2000)]
last = bytearray(100_000)
del pieces
gc.collect()
before = resident()
given = give_freed_memory_back()
print(given, before, resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_what_the_allocator_kept_is_given_back():
    found = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True, text=True).stdout.split()
    if found[0] == "False":
        pytest.skip("this system's C library is not glibc")
    before, after = map(int, found[1:])
    assert before > 180
    assert after < 60
