"""naifu-diffusion's NAI captions: who and what is shown first, then some of a picture's tags in random order.

Source: Mikubill/naifu-diffusion, its NAI tag processor. Tags are danbooru's, with or without their type before them
(artist:name).
"""
from __future__ import annotations

import random
import re
from collections.abc import Sequence

from lib_sdtrain.data.captions import split_tags

BEGINNING, NSFW = "Tags: ", "nsfw"
_TYPE = re.compile(r"(artist|copyright|character|general|meta|rating):(?=.)")
_ALWAYS_BARE, _MOSTLY_BARE, BARE_CHANCE = "meta", {"artist", "copyright", "character", "general"}, 0.75
_NSFW_RATINGS = {"questionable", "explicit"}
_KEPT_TYPES = {"artist", "copyright", "character"}
_KEPT = re.compile(r"[1-6](boy|girl)s?|6\+(boys|girls)|bad_anatomy|bad_hands")
USELESS = frozenset((
    "absurdres", "highres", "translation_request", "translated", "commentary", "commentary_request", "commentary_typo",
    "character_request", "bad_id", "bad_link", "bad_pixiv_id", "bad_twitter_id", "bad_tumblr_id", "bad_deviantart_id",
    "bad_nicoseiga_id", "md5_mismatch", "cosplay_request", "artist_request", "wide_image", "author_request",
    "artist_name",
))


def tags_of(caption: str, separator: str = ",") -> list[str]:
    """The tags of a caption: between separators, where there is none between spaces. A `Tags:` before them is none."""
    said = caption.strip().removeprefix(BEGINNING.strip())
    return split_tags(said, separator) if separator in said else said.split()


def nai_caption(tags: Sequence[str], fewest: int, most: int, rng: random.Random) -> str:
    """A caption for one sample; empty where no tag is of use.

    nsfw comes first if a rating says so, then what is always kept: artists, copyrights, characters, how many people,
    bad anatomy and hands. Of all tags a number from `fewest` to `most` is drawn; of these those are added that do not
    stand there yet.
    """
    useful = [tag for tag in dict.fromkeys(tags) if _known(tag)[1] not in USELESS]
    first = [NSFW] * any(map(_says_nsfw, useful))
    drawn = rng.sample(useful, min(rng.randint(fewest, most), len(useful)))
    others = (tag for tag in drawn if _known(tag)[1] != NSFW)
    chosen = dict.fromkeys([*first, *filter(_always, useful), *others])
    said = dict.fromkeys(filter(None, (_said(tag, rng) for tag in chosen)))
    return BEGINNING + ", ".join(said) if said else ""


def _known(tag: str) -> tuple[str, str]:
    """(type, name) as danbooru writes them; the type is empty where none is told."""
    kind = _TYPE.match(tag)
    return (kind[1] if kind else ""), tag[kind.end() if kind else 0 :].strip().replace(" ", "_")


def _says_nsfw(tag: str) -> bool:
    kind, name = _known(tag)
    return name in _NSFW_RATINGS if kind == "rating" else name == NSFW


def _always(tag: str) -> bool:
    kind, name = _known(tag)
    return kind in _KEPT_TYPES or bool(_KEPT.fullmatch(name))


def _said(tag: str, rng: random.Random) -> str:
    """The tag as it stands in the caption."""
    kind = _TYPE.match(tag)
    if kind and (kind[1] == _ALWAYS_BARE or (kind[1] in _MOSTLY_BARE and rng.random() < BARE_CHANCE)):
        tag = tag[kind.end() :]
    return tag.replace(",", "").replace("_", " ").strip()
