"""Changing a caption for one sample: shuffled tags, dropped tags, dropped captions."""
from __future__ import annotations

import random

from lib_sdtrain.settings.run import DataSettings


def vary_caption(caption: str, data: DataSettings, rng: random.Random) -> str:
    """The caption as this sample sees it.

    Order of draws (kohya's): the whole caption is dropped; else tags after the first `keep_tokens` are
    shuffled, then each of them is dropped with its own chance.
    """
    if data.caption_dropout_rate and rng.random() < data.caption_dropout_rate:
        return ""
    if not data.shuffle_caption and not data.tag_dropout_rate:
        return caption
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    kept, loose = tags[: data.keep_tokens], tags[data.keep_tokens :]
    if data.shuffle_caption:
        rng.shuffle(loose)
    if data.tag_dropout_rate:
        loose = [tag for tag in loose if rng.random() >= data.tag_dropout_rate]
    return ", ".join(kept + loose)
