"""The words that call a subject: the guides' templates, and how CLIP splits an identifier."""
from __future__ import annotations

import html
import re
from dataclasses import dataclass

from lib_sdtrain.errors import UserError

COMMON_TOKEN_ID = 20000  # CLIP's list is ordered by frequency; ids below name words it already knows well


def prompts(identifier: str, class_word: str, keep_class: bool) -> tuple[str, str]:
    """Instance and class prompt: `a photo of sks dog`, `a photo of a dog`."""
    subject = " ".join(f"{identifier} {class_word}".split())
    kept = " ".join(class_word.split())
    article = "an" if kept[:1].lower() in tuple("aeiou") else "a"
    return (f"a photo of {subject}" if subject else ""), (f"a photo of {article} {kept}" if kept and keep_class else "")


@dataclass(frozen=True)
class Words:
    """What the two prompts were made from."""

    identifier: str
    class_word: str
    keep_class: bool


_PROMPT = re.compile(r"\s*(?:a |an )?(?:photo|picture|painting|drawing) of (?:an? |the )?(.+?)\s*$", re.IGNORECASE)


def read_prompts(instance_prompt: str, class_prompt: str) -> Words:
    """The words in prompts of the guides' form; `sks` and nothing else for other prompts."""
    subject, kind = (_PROMPT.match(text) for text in (instance_prompt, class_prompt))
    if not subject:
        return Words("sks", kind[1] if kind else "", True)
    whole = subject[1]
    class_word = kind[1] if kind and whole.endswith(f" {kind[1]}") else whole.partition(" ")[2]
    identifier = whole.removesuffix(class_word).strip() or "sks"
    return Words(identifier, class_word, bool(class_prompt))


@dataclass(frozen=True)
class Reading:
    """How CLIP reads a word: its pieces, and a warning when it is no good as an identifier."""

    pieces: tuple[str, ...]
    warning: str = ""


def read_words(text: str) -> Reading:
    """Tokens of `text`. Without CLIP's vocabulary the reading says how to get it."""
    from lib_sdtrain.model.tokenizer import Tokenizer

    try:
        tokens = Tokenizer().split(text)
    except UserError as error:
        return Reading((), str(error))
    return Reading(tuple(piece for piece, _ in tokens), _judged(tokens))


def _judged(tokens: list[tuple[str, int]]) -> str:
    if len(tokens) > 1 and any(number < COMMON_TOKEN_ID for _, number in tokens):
        return "It splits into pieces that CLIP knows as other words; a rare single token such as sks learns better."
    return ""


def reading_html(identifier: str, class_word: str) -> str:
    """The line under the words, for people."""
    if not identifier.strip():
        return "<div class='sdtrain-note'>Choose a rare word, such as sks, that will call your subject.</div>"
    own, both = read_words(identifier), read_words(f"{identifier} {class_word}")
    pieces = "".join(f"<code>{html.escape(piece.replace('</w>', ''))}</code>" for piece in both.pieces)
    warning = f"<span class='sdtrain-warn'>{html.escape(own.warning)}</span>" if own.warning else ""
    one = " (one token each)" if len(both.pieces) == len(f"{identifier} {class_word}".split()) else ""
    return f"<div class='sdtrain-note'>CLIP reads: {pieces}{one} {warning}</div>"
