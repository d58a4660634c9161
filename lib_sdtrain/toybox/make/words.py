"""Which of CLIP's tokens the world's captions use."""

from __future__ import annotations

from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.toybox.captions import caption
from lib_sdtrain.toybox.scene import any_scene, keyed

SAMPLED_CAPTIONS = 5000


def used_tokens() -> tuple[int, ...]:
    """Every token of many captions, start and end included, in rising order."""
    tokenizer, seen = Tokenizer(), set()
    for index in range(SAMPLED_CAPTIONS):
        seen.update(tokenizer.frame(tokenizer.encode(caption(any_scene(0, index), keyed("words", index)))))
    return tuple(sorted(seen))
