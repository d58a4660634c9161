"""The host that is no host: a tab of its own process."""
from __future__ import annotations

import subprocess
import sys

import pytest

# as `ui` starts: freed memory is kept. The job's last piece is still in use, so that the heap does not simply end.
AFTER_A_JOB = """
from pathlib import Path
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.train.allocator import keep_freed_memory
def resident():
    return int(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0]) // 1024
kept = keep_freed_memory()
before = resident()
with StandaloneHost(Path()).step_aside():
    pieces = [bytearray(2**20) for _ in range(300)]
    last = bytearray(2**20)
    del pieces
    inside = resident()
print(kept, inside - before, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_a_jobs_memory_goes_back_when_it_has_ended():
    done = subprocess.run([sys.executable, "-c", AFTER_A_JOB], check=True, capture_output=True, text=True)
    kept, inside, after = done.stdout.split()
    if kept == "False":
        pytest.skip("this system's C library is not glibc")
    assert int(inside) > 250
    assert int(after) < 50
