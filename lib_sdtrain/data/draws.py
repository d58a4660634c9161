"""Which picture sample n of a run sees, and how: a pure function of the seed and n.

Concepts are interleaved by their weights with a low-discrepancy rule, so that after any number of samples
each one's count is within one of its share. Within a concept every picture is seen once before any is
seen again, in an order shuffled anew each time round.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from lib_sdtrain.data.captions import vary_caption
from lib_sdtrain.data.concepts import Material, Picture, prompt_of
from lib_sdtrain.data.randomness import permutation, python_random
from lib_sdtrain.settings.run import DataSettings


@dataclass(frozen=True)
class Draw:
    """One sample: the picture, its words, mirrored or not, and where it is cropped (fractions of the room).

    Its loss counts `loss_weight` times.
    """

    index: int
    picture: Picture
    prompt: str
    flip: bool
    crop: tuple[float, float]
    is_class: bool = False
    loss_weight: float = 1.0


def concept_order(weights: Sequence[float]) -> Iterator[int]:
    """Concept of sample 0, 1, 2, ...; after any n samples each one's count is within one of n x share.

    Tijdeman's solution of the chairman assignment problem (1980): among the concepts that are far enough
    behind, the one whose turn would become overdue first.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    counts = [0] * len(weights)
    slack = 1 / (2 * len(weights) - 2) if len(weights) > 1 else 0.0
    sample = 0
    while True:
        sample += 1
        behind = [share * sample - count for share, count in zip(shares, counts, strict=True)]
        ready = [c for c, gap in enumerate(behind) if gap >= slack - 1e-9]
        chosen = min(ready, key=lambda c: (1 - slack - behind[c]) / shares[c])
        counts[chosen] += 1
        yield chosen


class Draws:
    """All samples of a run, in order; `at(n)` may be asked for any n (cheapest going upwards)."""

    def __init__(self, materials: Sequence[Material], data: DataSettings, seed: int) -> None:
        self.materials, self.data, self.seed = list(materials), data, seed
        self._turns: list[tuple[int, int]] = []
        self._order = concept_order([material.concept.weight for material in materials])
        self._counts = [0] * len(materials)
        self._permutation = lru_cache(maxsize=64)(self._new_permutation)

    def at(self, index: int) -> Draw:
        """The instance sample number `index`."""
        concept, turn = self._turn(index)
        material = self.materials[concept]
        return self._draw(index, material.pictures, turn, ("instance", concept), material.concept.instance_prompt)

    def class_at(self, index: int) -> Draw | None:
        """The class sample that goes with instance sample `index`; None when its concept keeps no class."""
        concept, turn = self._turn(index)
        material = self.materials[concept]
        if not material.class_pictures:
            return None
        return self._draw(index, material.class_pictures, turn, ("class", concept), material.concept.class_prompt)

    def _turn(self, index: int) -> tuple[int, int]:
        if len(self.materials) == 1:
            return 0, index
        missing = index + 1 - len(self._turns)
        for concept in islice(self._order, max(0, missing)):
            self._turns.append((concept, self._counts[concept]))
            self._counts[concept] += 1
        return self._turns[index]

    def _new_permutation(self, count: int, purpose: str, epoch: int) -> list[int]:
        return permutation(count, self.seed, f"order {purpose}", epoch)

    def _draw(
        self, index: int, pictures: Sequence[Picture], turn: int, role: tuple[str, int], prompt: str
    ) -> Draw:
        purpose = f"{role[0]} {role[1]}"
        epoch, position = divmod(turn, len(pictures))
        picture = pictures[self._permutation(len(pictures), purpose, epoch)[position]]
        crops = python_random(self.seed, f"crop {purpose}", index)
        where = (crops.random(), crops.random()) if self.data.random_crop else (0.5, 0.5)
        flip = python_random(self.seed, f"flip {purpose}", index).random() < self.data.flip_p
        words = vary_caption(
            prompt_of(picture.caption, prompt), self.data, python_random(self.seed, f"caption {purpose}", index)
        )
        return Draw(index, picture, words, flip, where, is_class=role[0] == "class")
