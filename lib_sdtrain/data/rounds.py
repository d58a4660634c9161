"""Rounds over the pictures of a group: everyone once (or as often as it weighs) before anyone comes again.

The order of a round is a pure function of the seed, a purpose and the round's number; that of a large group is
computed place by place and takes no memory.
"""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from lib_sdtrain.data.randomness import key, permutation

LISTED = 65536
"""Up to this many places the order of a round is a shuffled list."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_MASK = (1 << 64) - 1
_ROUNDS = 6


class KeyedPermutation(Sequence[int]):
    """0..count-1 in keyed random order, each place computed when it is asked for.

    A Feistel network over pairs (left, right) with left < a, right < b, a x b >= count, that is walked until it
    lands below count (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    def __init__(self, count: int, seed: int, purpose: str, index: int = 0) -> None:
        self.count = count
        self._left = max(1, math.isqrt(count))
        self._right = -(-count // self._left)
        self._keys = [key(seed, f"{purpose} round {number}", index) for number in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> int:  # type: ignore[override]
        if not 0 <= place < self.count:
            raise IndexError(place)
        value = self._once(place)
        while value >= self.count:
            value = self._once(value)
        return value

    def _once(self, value: int) -> int:
        left, right = divmod(value, self._right)
        for number, secret in enumerate(self._keys):
            if number % 2:
                right = (right + _mixed(left + secret)) % self._right
            else:
                left = (left + _mixed(right + secret)) % self._left
        return left * self._right + right


def _mixed(value: int) -> int:
    """MurmurHash3's 64-bit finaliser (Appleby 2011)."""
    value &= _MASK
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def order_of(count: int, seed: int, purpose: str, index: int) -> Sequence[int]:
    """The keyed order of a round of `count` places."""
    if count <= LISTED:
        return permutation(count, seed, purpose, index)
    return KeyedPermutation(count, seed, purpose, index)


class Rounds:
    """Endless turns over `count` pictures. With `multipliers`, picture i has multipliers[i] turns a round on average.

    A fractional part is given fairly: over any number of rounds a picture's turns differ from its due by a few at
    most, and a round's length from the sum of the multipliers by less than one.
    """

    def __init__(self, count: int, seed: int, purpose: str, multipliers: Sequence[float] | None = None) -> None:
        self.count, self.seed, self.purpose = count, seed, purpose
        self._edges = None
        if multipliers is not None and len(set(multipliers)) > 1:
            self._edges = np.cumsum(np.asarray(multipliers, dtype=np.float64))
        elif multipliers is not None and multipliers and multipliers[0] <= 0:
            raise ValueError("multipliers are over 0")
        self._ends = [0]
        self._order = lru_cache(maxsize=8)(self._new_order)
        self._members = lru_cache(maxsize=2)(self._new_members)

    def picture(self, turn: int) -> int:
        """Whose turn it is."""
        if self._edges is None:
            number, place = divmod(turn, self.count)
            return self._order(number, self.count)[place]
        number = self._round_of(turn)
        members = self._members(number)
        return int(members[self._order(number, len(members))[turn - self._ends[number]]])

    def _round_of(self, turn: int) -> int:
        while self._ends[-1] <= turn:
            self._ends.append(self._ends[-1] + self._size(len(self._ends) - 1))
        return bisect_right(self._ends, turn) - 1

    def _offset(self, number: int) -> float:
        start = key(self.seed, f"weights {self.purpose}") / 2**63
        return math.fmod(start + number * _GOLDEN, 1.0)

    def _size(self, number: int) -> int:
        return int(np.floor(self._edges[-1] + self._offset(number)))

    def _new_members(self, number: int) -> np.ndarray:
        """The pictures of a round by systematic sampling: picture i owns a stretch as long as its multiplier."""
        marks = np.floor(self._edges + self._offset(number)).astype(np.int64)
        return np.repeat(np.arange(self.count, dtype=np.uint32), np.diff(marks, prepend=0))

    def _new_order(self, number: int, count: int) -> Sequence[int]:
        return order_of(count, self.seed, f"order {self.purpose}", number)
