"""Prompts as the first text encoder reads them: the pieces of each chunk of 75 tokens, for people to look at."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.model.tokenizer import Tokenizer, byte_symbols
from lib_sdtrain.sample.embeddings import Library
from lib_sdtrain.train.embeddings import library_of
from lib_sdtrain.train.forecast import NOTHING, first_prompts
from lib_sdtrain.train.long_prompts import chunks_of, with_embeddings
from lib_sdtrain.train.plan import Plan

END_OF_WORD = "</w>"


class Pieces:
    """Token ids as text; those of an embedding of `library` are its name, one for each of its vectors."""

    def __init__(self, tokenizer: Tokenizer, library: Library | None = None) -> None:
        self.tokenizer, self.library = tokenizer, library or Library()
        self._names = {number: piece for piece, number in tokenizer.vocabulary.ids.items()}
        self._bytes = {symbol: byte for byte, symbol in byte_symbols().items()}
        self._words = {number: f"{word.name} " for word in self.library.embeddings for number in word.ids}

    def text(self, number: int) -> str:
        """A token's letters, with a space behind a word's last; bytes that are no whole letter are shown as such."""
        if number in self._words:
            return self._words[number]
        piece = self._names[number]
        word = piece.removesuffix(END_OF_WORD)
        letters = bytes(self._bytes[symbol] for symbol in word).decode("utf-8", "replace")
        return letters + (" " if piece.endswith(END_OF_WORD) else "")

    def chunks(self, prompt: str, limit: int, form: str) -> dict[str, Any]:
        """`text`, the pieces of each of its `chunks`, and how many tokens are `cut` off."""
        end, find, found = self.tokenizer.eos_id, self.library.find, []
        for chunk in chunks_of(self.tokenizer, prompt, limit, form, find):
            words = list(chunk[1:-1])
            own = words[: words.index(end)] if end in words else words
            if own or not found:
                found.append([self.text(number) for number in own])
        cut = len(with_embeddings(self.tokenizer.encode(prompt), find)) - sum(map(len, found))
        return {"text": prompt, "chunks": found, "cut": max(0, cut)}


def shown_prompts(plan: Plan, draws: Draws) -> list[dict[str, Any]]:
    """The first samples' words exactly as training will see them, each with its tokens."""
    settings, tokenizer = plan.settings.model, Tokenizer(plan.family.text[0].tokenizer_style)
    pieces = Pieces(tokenizer, library_of(plan.settings, plan.family, tokenizer))
    return [
        {"text": NOTHING, "chunks": [], "cut": 0} if prompt == ZEROED
        else pieces.chunks(prompt, int(settings.max_token_length), settings.long_prompts)
        for prompt in first_prompts(plan, draws)
    ]
