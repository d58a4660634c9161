"""What glibc's allocator does with freed memory.

It gives large buffers back at once and faults them in again at every step: keeping them makes a training step on the
CPU more than twice as fast. Smaller ones it keeps for later, a host's memory does not come back by itself after a run.
Both are choices for the whole process, so the command line and the host make them and the engine does not.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEEP = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc not to return freed memory; False where there is no glibc."""
    mallopt = _glibc("mallopt")
    return bool(mallopt and mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP))


def give_freed_memory_back() -> bool:
    """Return all freed memory to the system now; False where there is no glibc, or nothing to return."""
    trim = _glibc("malloc_trim")
    return bool(trim and trim(0))


def _glibc(function: str) -> Any:
    """A function of the C library; None where that is not glibc."""
    name = ctypes.util.find_library("c") if sys.platform.startswith("linux") else None
    return getattr(ctypes.CDLL(name), function, None) if name else None
