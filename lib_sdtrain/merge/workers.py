"""Threads that compute pieces side by side, each with one thread of torch.

Torch would split every operation over all cores too; on pieces of this size the splitting costs more than
twice the arithmetic.
"""
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `count` threads. Other threads keep torch's setting; leaving drops what has not begun."""
    usual = torch.get_num_threads()
    everyone = threading.Barrier(count)

    def alone() -> None:
        torch.get_num_threads()  # a thread takes the usual number at its first question; only then does one stay
        torch.set_num_threads(1)
        everyone.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="merge")
    try:
        for started in [pool.submit(alone) for _ in range(count)]:
            started.result()
        torch.set_num_threads(usual)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
