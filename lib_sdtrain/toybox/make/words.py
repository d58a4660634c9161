"""Captions to token ids, with only the tokens that the world's captions use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.toybox.captions import caption
from lib_sdtrain.toybox.scene import keyed, training_scene

SAMPLED_CAPTIONS = 5000


@dataclass(frozen=True)
class Vocabulary:
    """The used token ids in rising order; position in this list is the id inside the small embedding."""

    ids: tuple[int, ...]

    def compact(self, framed: list[list[int]]) -> Tensor:
        """Real ids, framed to 77, to positions in the small embedding, (B, 77)."""
        where = {number: position for position, number in enumerate(self.ids)}
        return torch.tensor([[where[number] for number in row] for row in framed])


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """CLIP's tokenizer."""
    return Tokenizer()


@lru_cache(maxsize=100_000)
def framed(text: str) -> tuple[int, ...]:
    """The caption's 77 token ids."""
    return tuple(tokenizer().frame(tokenizer().encode(text)))


def used_vocabulary() -> Vocabulary:
    """Every token of many captions, start and end included."""
    seen = set()
    for index in range(SAMPLED_CAPTIONS):
        seen.update(framed(caption(training_scene(0, index), keyed("words", index))))
    return Vocabulary(tuple(sorted(seen)))
