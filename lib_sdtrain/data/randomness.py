"""Randomness as a pure function of (seed, what it is for, index).

Every random choice of a run is drawn from a generator keyed by those three, never from a running global
state. So a run resumes bit-exactly from any step without replaying anything, the order of threads does
not matter, and one process and many see the same samples.
"""
from __future__ import annotations

import random
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def key(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit number; distinct triples give independent ones (BLAKE2b)."""
    digest = blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def torch_generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator of torch; what is drawn from it is moved to the device afterwards, so devices agree."""
    import torch

    return torch.Generator("cpu").manual_seed(key(seed, purpose, index))


def python_random(seed: int, purpose: str, index: int = 0) -> random.Random:
    """A generator of the standard library, for order, captions and crops."""
    return random.Random(key(seed, purpose, index))  # noqa: S311 - not for secrets


def permutation(count: int, seed: int, purpose: str, index: int = 0) -> list[int]:
    """0..count-1 in keyed random order."""
    order = list(range(count))
    python_random(seed, purpose, index).shuffle(order)
    return order
