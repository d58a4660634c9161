"""Changing a caption for one sample: dropped, shuffled, thinned out, spelt otherwise, or made from tags."""
from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from lib_sdtrain.settings.run import DataSettings

ZEROED = "\0"
"""Stands for a caption that is dropped so that not even an empty text is read: what the UNet gets is zero."""
_DROPPED = {"empty": "", "space": " ", "zeroed": ZEROED}
_CHOICE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
SHORT_TAG = 3
SPLIT = ("empty", "zeroed")


def dropped_caption(mode: str, rng: random.Random) -> str:
    """What stands for a dropped caption; `split` is empty or zeroed, each half of the time (bigASP's code)."""
    return _DROPPED[rng.choice(SPLIT) if mode == "split" else mode]


def dropped_captions(mode: str) -> list[str]:
    """All that can stand for a dropped caption."""
    return [_DROPPED[one] for one in (SPLIT if mode == "split" else (mode,))]


def vary_caption(caption: str, data: DataSettings, rng: random.Random) -> str:
    """The caption as this sample sees it.

    Order of draws (kohya's): the whole caption is dropped; else wildcards are chosen, tags after the kept ones are
    shuffled, then each of them is dropped with its own chance. Spelling comes last.
    """
    if data.caption_dropout_rate and rng.random() < data.caption_dropout_rate:
        return dropped_caption(data.caption_dropout_mode, rng)
    if data.enable_wildcard:
        caption = choose_wildcards(caption, rng)
    caption = _vary_tags(caption, data, rng)
    if data.underscores != "keep":
        caption = respell(caption, data.caption_separator, data.underscores, rng)
    return caption.replace(r"\(", "(").replace(r"\)", ")") if data.unescape_brackets else caption


def _vary_tags(caption: str, data: DataSettings, rng: random.Random) -> str:
    mark, separator = data.keep_tokens_separator, data.caption_separator
    marked = bool(mark) and mark in caption
    if not data.shuffle_caption and not data.tag_dropout_rate:
        return join_tags(split_tags(caption.replace(mark, separator), separator), separator) if marked else caption
    if marked:
        first, _, rest = caption.partition(mark)
        middle, _, last = rest.partition(mark)
        kept, loose, end = (split_tags(part, separator) for part in (first, middle, last))
    else:
        tags = split_tags(caption, separator)
        kept, loose, end = tags[: data.keep_tokens], tags[data.keep_tokens :], []
    if data.shuffle_caption:
        rng.shuffle(loose)
    if data.tag_dropout_rate:
        loose = [tag for tag in loose if rng.random() >= data.tag_dropout_rate]
    return join_tags(kept + loose + end, separator)


def split_tags(caption: str, separator: str = ",") -> list[str]:
    """The tags of a caption without the white space around them."""
    return [tag.strip() for tag in caption.split(separator) if tag.strip()]


def join_tags(tags: Sequence[str], separator: str = ",") -> str:
    """Tags as a caption: the separator and a space between them."""
    return f"{separator.strip() or separator} ".join(tags)


def choose_wildcards(caption: str, rng: random.Random) -> str:
    """One of the lines, and of each `{one|another}` one; `{{` and `}}` are plain brackets (kohya's rules)."""
    lines = [line for line in caption.split("\n") if line.strip()]
    line = rng.choice(lines) if lines else caption

    def chosen(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        return rng.choice(match[1].split("|")) if "|" in match[1] else match[0]

    return _CHOICE.sub(chosen, line)


def respell(caption: str, separator: str, rule: str, rng: random.Random) -> str:
    """Underscores within tags as spaces; `random` leaves each tag as it is half of the time.

    Tags of up to three characters (^_^) are left alone.
    """
    tags = []
    for tag in split_tags(caption, separator):
        spaced = tag if len(tag) <= SHORT_TAG else tag.replace("_", " ")
        tags.append(spaced if rule == "spaces" or rng.random() < 0.5 else tag)
    return join_tags(tags, separator)


def replace_words(caption: str, words: Mapping[str, str]) -> str:
    """Whole words replaced: a trigger word by another one."""
    return _word_pattern(tuple(words)).sub(lambda match: str(words[match[0]]), caption) if words else caption


@lru_cache(maxsize=16)
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(word) for word in longest_first) + r")(?!\w)")
