"""The host that is no host: a tab of its own process."""
from __future__ import annotations

import subprocess
import sys

import pytest

# As `ui` starts: freed memory is kept. The job's last piece is still in use, so that the heap does not simply end.
# A job that failed is told of for as long as its error is kept, and that holds what it was doing.
AFTER_A_JOB = """
from pathlib import Path
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.train.allocator import keep_freed_memory
def resident():
    return int(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0]) // 1024
last = []
def job():
    pieces = [bytearray(2**20) for _ in range(300)]
    last.append(bytearray(2**20))
    print(resident() - before)
    if FAILS:
        raise ValueError
print(keep_freed_memory())
before = resident()
try:
    with StandaloneHost(Path()).step_aside():
        job()
except ValueError as error:
    told = error
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
@pytest.mark.parametrize("fails", [False, True])
def test_a_jobs_memory_goes_back_however_it_ended(fails):
    program = AFTER_A_JOB.replace("FAILS", str(fails))
    kept, inside, after = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    if kept == "False":
        pytest.skip("this system's C library is not glibc")
    assert int(inside) > 250
    assert int(after) < 50
