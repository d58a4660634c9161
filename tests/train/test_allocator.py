"""Freed memory goes back to the system where glibc has kept it."""
from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lib_sdtrain.train.allocator import WORTH_IT
from lib_sdtrain.train.spare_memory import spare_memory

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

HUGE = """
import ctypes
from lib_sdtrain.train.allocator import keep_freed_memory
kept = keep_freed_memory()
block = bytearray(300 * 2**20)
here = ctypes.addressof(ctypes.c_char.from_buffer(block)) + 150 * 2**20
flags = size = ""
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0]:
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        inside = first <= here < last
    elif inside and line.startswith("VmFlags"):
        flags = line
    elif inside and line.startswith("Rss"):
        size = line.split()[1]
print(kept, " hg" in flags, int(size) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_large_blocks_lie_in_huge_pages_and_nothing_else_is_taken():
    found = subprocess.run([sys.executable, "-c", HUGE], check=True, capture_output=True, text=True).stdout.split()
    if found[0] == "False":
        pytest.skip("this system's C library is not glibc")
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not pages.exists() or "[never]" in pages.read_text() or spare_memory() < 2 * WORTH_IT:
        pytest.skip("this machine has no huge pages, or no room for them")
    assert found[1] == "True"
    assert 300 <= int(found[2]) < 420


AHEAD = """
import ctypes, sys, threading, torch
from lib_sdtrain.train import allocator
from lib_sdtrain.train.zeroed import ZeroedMemory
def resident():
    return int(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0]) // 1024
def of(size, others=range(0)):
    before = resident()
    with allocator.memory_taken_ahead(size, others):
        for thread in threading.enumerate():
            if thread.name == "memory":
                thread.join()
        return resident() - before
unasked = of(200 * 2**20)
here = bytearray(b"kept") * 2**20
kept = allocator.keep_freed_memory()
here += b"!"
in_a_thread = []
worker = threading.Thread(target=lambda: in_a_thread.append(of(300 * 2**20)))
worker.start()
worker.join()
taken, too_much = of(400 * 2**20), of(2**50)
before = resident()
block = bytearray(300 * 2**20)
ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(block)), 1, len(block))
used, again = resident() - before, of(300 * 2**20)
del block
whole = here == bytearray(b"kept") * 2**20 + b"!"
allocator.give_freed_memory_back()
of(2**31)  # the heap has become shorter than that
others = ZeroedMemory(100 * 2**20)
beside = of(0, others.addresses)
zero = float(others.like(torch.ones(25 * 2**20)).sum()) == 0
print(kept, unasked, taken, too_much, used, again, *in_a_thread, beside, whole and zero)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_memory_taken_ahead_is_what_is_used_next():
    """As much as was asked, once; none for a process that keeps nothing, and none that is not to spare."""
    found = subprocess.run([sys.executable, "-c", AHEAD], check=True, capture_output=True, text=True).stdout.split()
    if found[0] == "False" or spare_memory() < 2 * WORTH_IT:
        pytest.skip("this system's C library is not glibc, or there is no room")
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (5, 14):
        pytest.skip("this system cannot take memory ahead")
    unasked, taken, too_much, used, again, in_a_thread, beside = map(int, found[1:8])
    assert unasked == 0
    assert 390 <= taken <= 410
    assert too_much == 0
    assert used <= 10
    assert again <= 10
    assert in_a_thread <= 2  # glibc has a heap of its own for it
    assert 98 <= beside <= 104
    assert found[8] == "True"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_what_the_allocator_kept_is_given_back():
    found = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True, text=True).stdout.split()
    if found[0] == "False":
        pytest.skip("this system's C library is not glibc")
    before, after = map(int, found[1:])
    assert before > 180
    assert after < 60
