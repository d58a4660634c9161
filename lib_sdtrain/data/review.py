"""What a user should know of pictures and captions before training: twins, odd captions, words that CLIP confuses."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from lib_sdtrain.data.captions import split_tags
from lib_sdtrain.data.catalogue import looks_of
from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.events import Notice
from lib_sdtrain.model.tokenizer import Tokenizer

NEAR_BITS = 3
BANDS, BAND_BITS = 4, 16
MOST = 50_000
SHOWN = 3
SAME, NEARLY = "the same", "nearly the same"
_WORD = re.compile(r"\w+")
ODDITIES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("an empty caption", lambda text: not text.strip()),
    ("a tag twice", lambda text: len(set(split_tags(text))) < len(split_tags(text))),
    ("broken characters", lambda text: "\ufffd" in text),
)


def remarks(materials: Sequence[Material]) -> Iterator[Notice]:
    """Notices about each concept's pictures and captions, and about the words that call the concepts."""
    for index, material in enumerate(materials):
        where = f"data.concepts.{index}"
        pictures = material.pictures[:MOST]
        for kind, pairs in twins_of(pictures).items():
            if pairs:
                shown = _shown(pictures, pairs)
                yield Notice(text=f"{_count(len(pairs), 'pair')} of {kind} picture: {shown}", where=where)
        for text in odd_captions(pictures):
            yield Notice(text=text, where=where)
    alike = words_alike(identifiers(materials))
    for one, two in alike[:SHOWN]:
        text = f"CLIP reads {one} and {two} alike but for one token and confuses them: choose words that differ more"
        yield Notice(text=text, where="data.concepts")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _shown(pictures: Sequence[Picture], pairs: Sequence[tuple[int, int]]) -> str:
    named = ", ".join(f"{pictures[one].path.name} and {pictures[other].path.name}" for one, other in pairs[:SHOWN])
    return named + (" ..." if len(pairs) > SHOWN else "")


def twins_of(pictures: Sequence[Picture]) -> dict[str, list[tuple[int, int]]]:
    """Pairs of places: those of pictures that are SAME, and of those that look alike, NEARLY."""
    looks = list(looks_of(pictures))
    return {SAME: exact_twins(looks), NEARLY: near_twins(looks)}


def exact_twins(looks: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
    """The place of each (SHA-256, look) whose SHA-256 came before, behind that of the first that has it."""
    first: dict[str, int] = {}
    return [(first[sha256], place) for place, (sha256, _) in enumerate(looks)
            if first.setdefault(sha256, place) != place]


def near_twins(looks: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
    """Places of other bytes that look alike: at most 3 of the 64 bits of `look_of` differ.

    Two numbers that differ in 3 bits agree in one of their four quarters at least, so only those are compared.
    Flat pictures, which have no bit set, are left out.
    """
    by_band: list[dict[int, list[tuple[int, int]]]] = [defaultdict(list) for _ in range(BANDS)]
    pairs, seen = [], set()
    for place, (sha256, look) in enumerate(looks):
        if not look or sha256 in seen:
            continue
        seen.add(sha256)
        bands = [look >> BAND_BITS * band & 2**BAND_BITS - 1 for band in range(BANDS)]
        others = (other for table, band in zip(by_band, bands, strict=True) for other in table[band])
        twin = next((other for other, alike in others if (alike ^ look).bit_count() <= NEAR_BITS), None)
        if twin is not None:
            pairs.append((twin, place))
            continue
        for table, band in zip(by_band, bands, strict=True):
            table[band].append((place, look))
    return pairs


def odd_captions(pictures: Sequence[Picture]) -> Iterator[str]:
    """What looks like a mistake in the captions: missing, empty, repeated tags, broken characters."""
    missing, found = 0, {what: [0, []] for what, _ in ODDITIES}
    for picture in pictures:
        if picture.caption is None:
            missing += 1
            continue
        for what, wrong in ODDITIES:
            if wrong(picture.caption):
                found[what][0] += 1
                found[what][1] += [picture.path.name] * (len(found[what][1]) < SHOWN)
    if 0 < missing < len(pictures):
        yield f"{missing} of {len(pictures)} pictures have no caption and take the prompt"
    for what, (count, names) in found.items():
        if count:
            yield f"{_count(count, 'caption')} with {what}: {', '.join(names)}"


def oddity(caption: str) -> str:
    """What looks like a mistake in a caption; empty for nothing."""
    return next((what for what, wrong in ODDITIES if wrong(caption)), "")


def identifiers(materials: Sequence[Material]) -> list[str]:
    """The words that call the concepts: those of a prompt that its class prompt lacks, and words with a number in them
    that come in captions more than once.
    """
    found = Counter()
    for material in materials:
        concept = material.concept
        common = set(_WORD.findall(concept.class_prompt.lower()))
        for word in set(_WORD.findall(concept.instance_prompt.lower())) - common:
            found[word] += 2
        for picture in material.pictures[:MOST]:
            words = set(_WORD.findall((picture.caption or "").lower()))
            found.update(word for word in words if any(c.isdigit() for c in word) and word[0].isalpha())
    return sorted(word for word, count in found.items() if count > 1)


def words_alike(words: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs that CLIP splits into as many tokens, two at least, of which only one differs."""
    if len(words) < 2:
        return []
    tokenizer = Tokenizer()
    split = {word: tuple(tokenizer.encode(word)) for word in words[:1000]}
    masked: dict[tuple[int | None, ...], list[str]] = defaultdict(list)
    for word, ids in split.items():
        for place in range(len(ids)) if len(ids) > 1 else ():
            masked[(*ids[:place], None, *ids[place + 1 :])].append(word)
    return sorted({(group[0], other) for group in masked.values() for other in group[1:]})
