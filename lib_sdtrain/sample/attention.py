"""Attention in prompts: `(more)`, `[less]`, `(just so:1.3)`, escapes and BREAK.

Grammar (AUTOMATIC1111 WebUI):

    text       what is not a bracket
    ( ... )    weight × 1.1            ( ... :w )   weight × w
    [ ... ]    weight ÷ 1.1            \\( \\) \\[ \\] \\\\   the character itself
    BREAK      the rest starts a new chunk of 75 tokens

Brackets nest, weights multiply, and a bracket that is never closed counts to the end.
"""
from __future__ import annotations

import re
from typing import NamedTuple

ROUND = 1.1
SQUARE = 1 / 1.1

_TOKEN = re.compile(
    r"""
    \\(?P<escaped> [()\[\]\\]?)
  | (?P<open_round> \( )
  | (?P<open_square> \[ )
  | :\s*(?P<weight> [+-]?[.\d]+ )\s*\)
  | (?P<close_round> \) )
  | (?P<close_square> \] )
  | (?P<text> [^\\()\[\]:]+ | : )
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


class Weighted(NamedTuple):
    """A piece of prompt with its attention weight."""

    text: str
    weight: float

    @property
    def is_break(self) -> bool:
        """True for the BREAK marker. Inside brackets BREAK is weighted with the rest, and so becomes a word again."""
        return self == BREAK


BREAK = Weighted("BREAK", -1.0)


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return None


class _Pieces:
    """The pieces found so far and the brackets that are still open."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.weights: list[float] = []
        self.round: list[int] = []
        self.square: list[int] = []

    def add(self, text: str, weight: float = 1.0) -> None:
        self.texts.append(text)
        self.weights.append(weight)

    def add_text(self, text: str) -> None:
        for index, part in enumerate(_BREAK.split(text)):
            if index:
                self.add(*BREAK)
            self.add(part)

    def close(self, opened: list[int], factor: float) -> None:
        start = opened.pop()
        self.weights[start:] = [weight * factor for weight in self.weights[start:]]

    def merged(self) -> list[Weighted]:
        """Neighbours of the same weight joined."""
        found: list[Weighted] = []
        for text, weight in zip(self.texts, self.weights, strict=True):
            if found and found[-1].weight == weight:
                found[-1] = Weighted(found[-1].text + text, weight)
            else:
                found.append(Weighted(text, weight))
        return found or [Weighted("", 1.0)]


def _take(pieces: _Pieces, match: re.Match[str]) -> None:
    kind, token = match.lastgroup, match.group()
    if kind == "escaped":
        pieces.add(match["escaped"])
    elif kind == "open_round":
        pieces.round.append(len(pieces.texts))
    elif kind == "open_square":
        pieces.square.append(len(pieces.texts))
    elif kind == "weight" and pieces.round:
        weight = _number(match["weight"])
        if weight is None:  # ":1.2.3)" is no number: plain text, and the bracket closes as usual
            pieces.add_text(token[:-1])
        pieces.close(pieces.round, ROUND if weight is None else weight)
    elif kind == "close_round" and pieces.round:
        pieces.close(pieces.round, ROUND)
    elif kind == "close_square" and pieces.square:
        pieces.close(pieces.square, SQUARE)
    else:
        pieces.add_text(token)


def parse_attention(prompt: str) -> list[Weighted]:
    """The prompt as pieces of equal weight, in order; never fails.

    Source: AUTOMATIC1111 WebUI 1.10.1, prompt_parser.py:parse_prompt_attention (semantics).
    """
    pieces = _Pieces()
    for match in _TOKEN.finditer(prompt):
        _take(pieces, match)
    while pieces.round:
        pieces.close(pieces.round, ROUND)
    while pieces.square:
        pieces.close(pieces.square, SQUARE)
    return pieces.merged()


def uses_attention(prompt: str) -> bool:
    """Whether any piece of the prompt has a weight other than 1."""
    return any(piece.weight != 1.0 and not piece.is_break for piece in parse_attention(prompt))
