"""The seed of every picture of a request."""
from __future__ import annotations

import random
from dataclasses import dataclass

from lib_sdtrain.settings.sample import RANDOM_SEED_END, SampleRequest


@dataclass(frozen=True)
class Seeds:
    """One of each a picture, batch after batch."""

    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]


def seeds_of(request: SampleRequest) -> Seeds:
    """seed + i, or the same seed with subseed + i where a variation is asked for; -1 is drawn at random."""
    seed, subseed = _fixed(request.seed), _fixed(request.subseed)
    step = 1 if request.subseed_strength == 0 else 0
    count = range(request.count)
    return Seeds(tuple(seed + i * step for i in count), tuple(subseed + i for i in count))


def _fixed(seed: int) -> int:
    return random.SystemRandom().randrange(RANDOM_SEED_END) if seed == -1 else seed
