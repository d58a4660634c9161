"""Fair turns: who comes at sample 0, 1, 2, ... so that nobody is ever ahead of or behind its share by a whole turn."""
from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
MANY = 32
_ROUNDING = 1e-9


def fair_order(weights: Sequence[float]) -> Iterator[int]:
    """Index of the one whose turn it is; after any n turns each one's count is within one of n x share.

    Tijdeman's solution of the chairman assignment problem (1980): among those that are far enough behind, the one
    whose turn would become overdue first. `weights` are over 0.
    """
    return _by_heaps(weights) if len(weights) > MANY else _by_looking_at_all(weights)


def _by_looking_at_all(weights: Sequence[float]) -> Iterator[int]:
    total = sum(weights)
    shares = [weight / total for weight in weights]
    counts = [0] * len(weights)
    slack = 1 / (2 * len(weights) - 2) if len(weights) > 1 else 0.0
    sample = 0
    while True:
        sample += 1
        behind = [share * sample - count for share, count in zip(shares, counts, strict=True)]
        ready = [c for c, gap in enumerate(behind) if gap >= slack - _ROUNDING]
        chosen = min(ready, key=lambda c: (1 - slack - behind[c]) / shares[c])
        counts[chosen] += 1
        yield chosen


def _by_heaps(weights: Sequence[float]) -> Iterator[int]:
    """The same rule at a cost that grows with the logarithm of their number.

    Turn k + 1 of share s may come from sample (slack + k) / s on and is overdue after (1 - slack + k) / s.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    counts = [0] * len(weights)
    slack = 1 / (2 * len(weights) - 2)
    waiting = [(slack / share, c) for c, share in enumerate(shares)]
    heapq.heapify(waiting)
    ready: list[tuple[float, int]] = []
    sample = 0
    while True:
        sample += 1
        while waiting and (waiting[0][0] <= sample * (1 + _ROUNDING) or not ready):
            _, c = heapq.heappop(waiting)
            heapq.heappush(ready, ((1 - slack + counts[c]) / shares[c], c))
        _, chosen = heapq.heappop(ready)
        counts[chosen] += 1
        heapq.heappush(waiting, ((slack + counts[chosen]) / shares[chosen], chosen))
        yield chosen


class Replayed(Generic[T]):
    """An endless sequence that is made in order, asked for at any place: going on is cheap, going far back begins anew.

    The last `kept` entries at least stay in memory.
    """

    def __init__(self, begin: Callable[[], Iterator[T]], kept: int = 65536) -> None:
        self._begin, self._most = begin, kept
        self._restart()

    def _restart(self) -> None:
        self._source, self._first, self._window = self._begin(), 0, []

    def __getitem__(self, index: int) -> T:
        if index < self._first:
            self._restart()
        window = self._window
        while (missing := index + 1 - self._first - len(window)) > 0:
            window.extend(islice(self._source, min(missing, self._most)))
            if len(window) > 2 * self._most:
                self._first += len(window) - self._most
                del window[: -self._most]
        return window[index - self._first]
