"""bigASP's prompts: some of a picture's tags in random order and spelling, after tags of its quality.

Source: fpgaminer/bigasp-training, version 1.
"""
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_sdtrain.errors import UserError
from lib_sdtrain.textfiles import read_mapping

MEAN, SPREAD, FEWEST = 32, 19.8, 5
MOST_SCORES = 3
ALIASED, SPACED, COMMA, EXTRA_SPACE = 0.2, 0.8, 0.8, 0.8

Aliases = Mapping[str, Sequence[str]]


def tag_count(available: int, always: int, rng: random.Random) -> int:
    """How many tags: a normal number (32, 19.8), at least 5 and all that are always kept, at most all."""
    return min(max(FEWEST, int(rng.gauss(MEAN, SPREAD)), always), available)


def score_tags(score: int, rng: random.Random) -> list[str]:
    """One to three of `score_1_up` ... `score_N_up` and `score_N`, at most one more than the score."""
    known = [f"score_{number}_up" for number in range(1, score + 1)] + [f"score_{score}"]
    return rng.sample(known, rng.randint(1, min(MOST_SCORES, score + 1)))


def make_prompt(
    tags: Sequence[str], score: int | None, rng: random.Random, important: Sequence[str] = ("watermark",),
    aliases: Aliases | None = None,
) -> str:
    """A prompt for one sample; without a score there are no score tags. Equal tags count once."""
    unique = sorted(set(tags))
    always = [tag for tag in unique if tag in important]
    others = [tag for tag in unique if tag not in important]
    chosen = always + rng.sample(others, tag_count(len(unique), len(always), rng) - len(always))
    rng.shuffle(chosen)
    spelling = rng.choice(("keep", "spaces", "mostly"))
    words = [_spelt(_aliased(tag, aliases or {}, rng), spelling, rng) for tag in chosen]
    if score is not None:
        words = score_tags(score, rng) + words
    return _joined(words, rng)


def _aliased(tag: str, aliases: Aliases, rng: random.Random) -> str:
    others = aliases.get(tag)
    return rng.choice(others) if others and rng.random() < ALIASED else tag


def _spelt(tag: str, spelling: str, rng: random.Random) -> str:
    spaced = spelling == "spaces" or (spelling == "mostly" and rng.random() < SPACED)
    return tag.replace("_", " ") if spaced else tag


def _joined(words: Sequence[str], rng: random.Random) -> str:
    always_comma = rng.random() < COMMA
    text = ""
    for number, word in enumerate(words):
        if number:
            text += "," if always_comma or rng.random() < COMMA else " "
            text += " " if rng.random() < EXTRA_SPACE else ""
        text += word
    return text


def read_aliases(file: str, where: str) -> dict[str, tuple[str, ...]]:
    """{tag: its other names} from a JSON or YAML mapping of a tag to a name or a list of names. Raises `UserError`."""
    found = {}
    for tag, names in read_mapping(Path(file).expanduser()).items():
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise UserError(f"the aliases of {tag!r} are not names", where=where, fix="write tag: [name, other name]")
        found[str(tag)] = tuple(listed)
    return found
