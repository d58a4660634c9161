"""Work done by threads a little ahead of who takes it, in order."""
from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
MOST_WORKERS = 8


def ahead(name: str, items: Iterable[T], work: Callable[[T], R], ready: Callable[[T], R | None]) -> Iterator[R]:
    """`work` of every item, in order; `ready` answers for items that need none. `name` is what the threads are called.

    At most three items a thread are under way. What `work` raises is raised here. Who stops early loses no time:
    what has not begun is dropped.
    """
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    waiting: deque[Future[R] | R] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
        try:
            for item in items:
                known = ready(item)
                waiting.append(pool.submit(work, item) if known is None else known)
                if len(waiting) > 2 * workers:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for one in waiting:
                if isinstance(one, Future):
                    one.cancel()


def _result(one: Future[R] | R) -> R:
    return one.result() if isinstance(one, Future) else one
