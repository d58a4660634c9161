"""What glibc's allocator does with freed memory.

It gives large buffers back at once and faults them in again at every step: keeping them makes a training step on the
CPU more than twice as fast. Smaller ones it keeps for later, a host's memory does not come back by itself after a run.
Pages of 2 MB in place of 4 KB are there 512 times sooner: a model of 4 GB is loaded in half the time. All are choices
for the whole process, so the command line and the host make them and the engine does not.

What a run is sure to hold can be taken from the system ahead, by a thread of its own, while there is other work: where
a machine's memory is slow to come (a virtual one's, whose host gives it by the page) the first step is there sooner.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import gc
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lib_sdtrain.train.spare_memory import spare_memory

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEEP = 2**31 - 1
MADV_HUGEPAGE, MADV_POPULATE_WRITE = 14, 23
HUGE_PAGE = 2**21
AT_ONCE = 2 * HUGE_PAGE
"""Bytes taken ahead in one call: a thread that asks for new addresses (imports do) waits as long as one lasts."""
GUARD = 2**24
"""Bytes that stay taken at the heap's end, unused: glibc gives an end of more than 2 GB back whatever it is asked."""
WORTH_IT = 2**30
"""Bytes of free memory under which there is no room for pages that are used in part."""

_extended: list[range] = []
"""Addresses that the heap was extended by, from which glibc takes the lowest first."""


def keep_freed_memory() -> bool:
    """Ask glibc not to return freed memory, and to get new memory in huge pages; False where there is no glibc."""
    mallopt = _glibc("mallopt")
    kept = bool(mallopt and mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP))
    if kept and (spare := spare_memory()) >= WORTH_IT:
        _extended.extend(_use_huge_pages(spare))
    return kept


def _use_huge_pages(size: int) -> Iterator[range]:
    """Extend the heap by `size` addresses, of which none takes memory before it is used, then in huge pages. Yields
    the addresses of those; nothing where the process may not have so many.
    """
    malloc, free = (_glibc(name) for name in ("malloc", "free"))
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    start, _last = malloc(size), malloc(GUARD)
    if start is None:
        return
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    pages = range(first, first + (size // HUGE_PAGE - 2) * HUGE_PAGE)
    _madvise()(pages.start, len(pages), MADV_HUGEPAGE)
    free(start)
    yield pages


@contextmanager
def memory_taken_ahead(size: int, others: range = range(0)) -> Iterator[None]:
    """While what is inside begins, a thread has the system give this process memory that it will use: `size` bytes of
    the heap, and `others`, addresses of memory of its own.

    Nothing happens where the process has not chosen `keep_freed_memory`, where there is less than that to spare, or
    Linux cannot (before 5.14); nor in another thread than the main one, to which glibc gives heaps of its own: the
    memory taken would lie there beside what is used.
    """
    of_others = threading.current_thread() is not threading.main_thread()
    if not _extended or of_others or spare_memory() < size + len(others):
        yield
        return
    leave = threading.Event()
    places = [_extended[-1][:size], others]
    thread = threading.Thread(target=_take, args=(places, leave), name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def _take(places: Iterable[range], leave: threading.Event) -> None:
    """Until there is no more to take, or the heap has become shorter. What lies there already stays as it is."""
    madvise = _madvise()
    for addresses in places:
        for first in addresses[::AT_ONCE]:
            size = min(AT_ONCE, addresses.stop - first)
            if leave.is_set() or madvise(first, size, MADV_POPULATE_WRITE):
                break


@contextmanager
def memory_given_back(empty_cache: Callable[[], object] = lambda: None) -> Iterator[None]:
    """What is done inside has memory while it is done: however it ends, all of it goes back to the system.

    `empty_cache` empties the device's.
    """
    try:
        yield
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        gc.collect()  # the engine's modules refer to each other
        with suppress(RuntimeError):  # a card that has failed says so again; what it said first is what is told
            empty_cache()
        give_freed_memory_back()


def _forget_locals(error: BaseException | None) -> None:
    """An error's traceback holds the frames that it came through, and they the model; so do those that led to it."""
    seen = set()
    while error is not None and id(error) not in seen:  # two may name each other
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def give_freed_memory_back() -> bool:
    """Return all freed memory to the system now; False where there is no glibc, or nothing to return."""
    trim = _glibc("malloc_trim")
    return bool(trim and trim(0))


def _madvise() -> Any:
    """(address, bytes, advice) -> 0, or -1 where that is not possible; only where there is glibc."""
    function = _glibc("madvise")
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def _glibc(function: str) -> Any:
    """A function of the C library; None where that is not glibc."""
    name = ctypes.util.find_library("c") if sys.platform.startswith("linux") else None
    return getattr(ctypes.CDLL(name), function, None) if name else None
