"""A prompt cut into chunks of 75 tokens, with a weight for every token."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lib_sdtrain.sample.attention import Weighted, parse_attention

LENGTH = 75


class TextTokenizer(Protocol):
    """What is needed of a tokenizer."""

    bos_id: int
    eos_id: int

    @property
    def comma_id(self) -> int:
        """The id of a comma that ends a word."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids without the start and end tokens."""
        ...


class Insert(NamedTuple):
    """Vectors of a textual-inversion embedding that stand in for tokens, from place `offset` (0 is the first of 75)."""

    offset: int
    embedding: Any


@dataclass
class Chunk:
    """Up to 75 tokens on their way to the text encoder."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    inserts: list[Insert] = field(default_factory=list)

    def framed(self, tokenizer: TextTokenizer) -> Chunk:
        """77 tokens: start, the chunk, and end tokens to fill it. Weights of what is added are 1."""
        missing = LENGTH - len(self.ids)
        ids = [tokenizer.bos_id, *self.ids, *[tokenizer.eos_id] * (missing + 1)]
        return Chunk(ids, [1.0, *self.weights, *[1.0] * (missing + 1)], self.inserts)


Find = Callable[[Sequence[int], int], tuple[Any, int]]
"""find(ids, position): the embedding named at this place and how many tokens its name has; (None, 0) for none."""


class _Cutter:
    """Fills one chunk after the other. `backtrack`: see `cut`."""

    def __init__(self, comma: int, backtrack: int) -> None:
        self.comma, self.backtrack = comma, backtrack
        self.done: list[Chunk] = []
        self.chunk = Chunk()
        self.after_comma: int | None = None

    def next(self) -> None:
        self.done.append(self.chunk)
        self.chunk = Chunk()
        self.after_comma = None

    def make_room(self, token: int) -> None:
        """Remember commas; at the end of a chunk, move what follows a near comma into the next one."""
        chunk = self.chunk
        if token == self.comma:
            self.after_comma = len(chunk.ids) + 1
        elif len(chunk.ids) == LENGTH and self.backtrack and self.after_comma is not None:
            start = self.after_comma
            if LENGTH - (start - 1) <= self.backtrack:
                moved = Chunk(chunk.ids[start:], chunk.weights[start:])
                del chunk.ids[start:], chunk.weights[start:]
                self.next()
                self.chunk = moved
        if len(self.chunk.ids) == LENGTH:
            self.next()

    def add(self, ids: Sequence[int], weight: float) -> None:
        self.chunk.ids.extend(ids)
        self.chunk.weights.extend([weight] * len(ids))

    def insert(self, embedding: Any, length: int, weight: float) -> None:
        if len(self.chunk.ids) + length > LENGTH:
            self.next()
        self.chunk.inserts.append(Insert(len(self.chunk.ids), embedding))
        self.add([0] * length, weight)


def nothing_to_find(ids: Sequence[int], position: int) -> tuple[None, int]:
    """No embeddings."""
    return None, 0


def cut(
    prompt: str, tokenizer: TextTokenizer, *, emphasis: str = "Original", backtrack: int = 20,
    find: Find = nothing_to_find,
) -> list[Chunk]:
    """The chunks of a prompt, framed to 77 tokens; at least one.

    A chunk that would end within `backtrack` tokens after a comma ends at the comma. With emphasis `None` brackets are
    plain text. Source: AUTOMATIC1111 WebUI 1.10.1, sd_hijack_clip.py:tokenize_line (semantics).
    """
    pieces = [Weighted(prompt, 1.0)] if emphasis == "None" else parse_attention(prompt)
    cutter = _Cutter(tokenizer.comma_id, backtrack)
    for piece in pieces:
        if piece.is_break:
            cutter.next()
            continue
        ids, position = tokenizer.encode(piece.text), 0
        while position < len(ids):
            cutter.make_room(ids[position])
            embedding, length = find(ids, position)
            if embedding is None:
                cutter.add(ids[position : position + 1], piece.weight)
                position += 1
            else:
                cutter.insert(embedding, embedding.vectors, piece.weight)
                position += length
    if cutter.chunk.ids or not cutter.done:
        cutter.next()
    return [chunk.framed(tokenizer) for chunk in cutter.done]


def empty_chunk(tokenizer: TextTokenizer) -> Chunk:
    """A chunk without words, for texts that have fewer chunks than their neighbours."""
    return Chunk().framed(tokenizer)
