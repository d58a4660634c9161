"""Events of work that reports by callback, as an iterator."""
from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from lib_sdtrain.events import CancelToken, Event

_END = object()


def streamed(work: Callable[[Callable[[Event], None]], None], token: CancelToken) -> Iterator[Event]:
    """Run `work(tell)` in a thread and yield what it tells, as it tells it; what it raises is raised here.

    Closing the iterator early asks the work to stop through `token` and waits for it.
    """
    told: queue.Queue[object] = queue.Queue()

    def run() -> None:
        try:
            work(told.put)
            told.put(_END)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that listens
            told.put(error)

    thread = threading.Thread(target=run, name="sampling", daemon=True)
    thread.start()
    try:
        while (item := told.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        if thread.is_alive():
            token.stop_now()
            thread.join()
