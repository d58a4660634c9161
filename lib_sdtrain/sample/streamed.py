"""Events of work that reports by callback, as an iterator."""
from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.model.cards import current_card, use_card

_END = object()


def streamed(work: Callable[[Callable[[Event], None]], None], token: CancelToken) -> Iterator[Event]:
    """Run `work(tell)` in a thread and yield what it tells, as it tells it; what it raises is raised here.

    Closing the iterator early asks the work to stop through `token` and waits for it.
    """
    told: queue.Queue[object] = queue.Queue()

    def run() -> None:
        try:
            work(told.put)
        finally:
            told.put(_END)

    pool = ThreadPoolExecutor(1, thread_name_prefix="sampling", initializer=use_card, initargs=(current_card(),))
    done = pool.submit(run)
    try:
        while (item := told.get()) is not _END:
            yield item
        done.result()
    finally:
        if not done.done():
            token.stop_now()
        pool.shutdown()
