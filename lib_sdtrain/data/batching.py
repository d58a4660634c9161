"""Batches of one size without short ones: samples wait until their bucket has enough of them for a batch.

The samples keep the fair order in which they are drawn; only those that still wait are late. So over any length of
a run every picture has had its due turns but for at most one batch a bucket that waits, no batch is short, and the
order of the buckets is as random as that of the pictures.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import count as counting
from typing import TypeVar

T = TypeVar("T")


def batched(draw: Callable[[int], T], bucket: Callable[[T], Hashable], size: int) -> Iterator[T]:
    """The samples draw(0), draw(1), ... rearranged so that places k x size to k x size + size - 1 share a bucket."""
    waiting: dict[Hashable, list[T]] = {}
    for index in counting():
        sample = draw(index)
        queue = waiting.setdefault(bucket(sample), [])
        queue.append(sample)
        if len(queue) == size:
            yield from queue
            queue.clear()
