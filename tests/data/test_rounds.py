"""Fair turns, rounds and batches: nobody over- or under-seen, at any place, at any number of pictures."""
import math
import time
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain.data.batching import batched
from lib_sdtrain.data.interleave import MANY, Replayed, fair_order
from lib_sdtrain.data.rounds import LISTED, KeyedPermutation, Rounds, order_of


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=3 * MANY))
def test_after_any_number_of_turns_each_is_within_one_of_its_share(weights):
    counts, total = [0] * len(weights), sum(weights)
    for turn, chosen in enumerate(islice(fair_order(weights), 400), 1):
        counts[chosen] += 1
        assert max(abs(c - turn * w / total) for c, w in zip(counts, weights, strict=True)) < 1 + 1e-6


def test_a_replayed_sequence_can_be_asked_anywhere():
    squares = Replayed(lambda: (n * n for n in range(10**9)), kept=10)
    for index in (0, 5, 100, 99, 3, 1000, 0):
        assert squares[index] == index * index


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1000, 4097])
def test_a_computed_order_is_a_permutation(count):
    order = KeyedPermutation(count, 3, "x")
    assert sorted(order) == list(range(count))
    if count > 9:
        assert list(order) != list(range(count))
        assert list(order) != list(KeyedPermutation(count, 4, "x"))


def test_a_computed_order_spreads_evenly():
    """Place 0..99 of many orders: chi-square of where it lands in ten parts."""
    parts = Counter()
    for index in range(400):
        order = KeyedPermutation(1000, 1, "x", index)
        parts.update(order[place] // 100 for place in range(5))
    expected = 400 * 5 / 10
    assert sum((parts[p] - expected) ** 2 / expected for p in range(10)) < 27.9     # 99.9 % of chi-square with 9


def test_the_order_of_a_million_pictures_takes_no_time():
    began = time.perf_counter()
    order = order_of(1_000_000, 0, "x", 5)
    seen = {order[place] for place in range(2000)}
    assert len(seen) == 2000
    assert time.perf_counter() - began < 1
    assert isinstance(order_of(LISTED, 0, "x", 0), list)


def test_multipliers_give_each_picture_its_due_turns_at_any_time():
    multipliers = [2.0, 0.5, 1.0, 3.47, 0.1]
    rounds, counts, total = Rounds(5, 1, "x", multipliers), [0] * 5, sum(multipliers)
    for turn in range(7000):
        counts[rounds.picture(turn)] += 1
    for count, multiplier in zip(counts, multipliers, strict=True):
        assert abs(count - 7000 * multiplier / total) < 5
    jumping = Rounds(5, 1, "x", multipliers)
    assert [jumping.picture(turn) for turn in (6999, 12, 5000)] == [rounds.picture(turn) for turn in (6999, 12, 5000)]


def test_equal_multipliers_are_none():
    weighted, plain = Rounds(4, 1, "x", [2.0] * 4), Rounds(4, 1, "x")
    assert [weighted.picture(n) for n in range(9)] == [plain.picture(n) for n in range(9)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 7))
def test_batches_have_one_bucket_and_lose_nobody(buckets, size):
    """`buckets` of the pictures of a round, drawn round after round."""
    count = len(buckets)
    samples = list(islice(batched(lambda n: n, lambda n: buckets[n % count], size), size * 80))
    for start in range(0, len(samples), size):
        assert len({buckets[n % count] for n in samples[start:start + size]}) == 1
    assert len(set(samples)) == len(samples)
    waiting = set(range(max(samples))) - set(samples)
    by_bucket = Counter(buckets[n % count] for n in waiting)
    assert all(number < size for number in by_bucket.values())
    assert math.isclose(len(samples), size * 80)


def test_batches_of_one_keep_the_order():
    assert list(islice(batched(lambda n: n, lambda n: n % 3, 1), 9)) == list(range(9))
