"""Prompts as the first text encoder reads them: the pieces of each chunk of 75 tokens, for people to look at."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.model.tokenizer import Tokenizer, byte_symbols
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.forecast import SHOWN_PROMPTS
from lib_sdtrain.train.long_prompts import chunks_of
from lib_sdtrain.train.plan import Plan

NOTHING = "(nothing)"
END_OF_WORD = "</w>"
UNKNOWN = "[embedding]"


class Pieces:
    """Token ids as text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._names = {number: piece for piece, number in tokenizer.vocabulary.ids.items()}
        self._bytes = {symbol: byte for byte, symbol in byte_symbols().items()}

    def text(self, number: int) -> str:
        """A token's letters, with a space behind a word's last; bytes that are no whole letter are shown as such."""
        piece = self._names.get(number)
        if piece is None:
            return UNKNOWN
        word = piece.removesuffix(END_OF_WORD)
        letters = bytes(self._bytes[symbol] for symbol in word).decode("utf-8", "replace")
        return letters + (" " if piece.endswith(END_OF_WORD) else "")

    def chunks(self, prompt: str, limit: int, form: str) -> dict[str, Any]:
        """`text`, the pieces of each of its `chunks`, and how many tokens are `cut` off."""
        end, found = self.tokenizer.eos_id, []
        for chunk in chunks_of(self.tokenizer, prompt, limit, form):
            words = list(chunk[1:-1])
            own = words[: words.index(end)] if end in words else words
            if own or not found:
                found.append([self.text(number) for number in own])
        cut = len(self.tokenizer.encode(prompt)) - sum(map(len, found))
        return {"text": prompt, "chunks": found, "cut": max(0, cut)}


def shown_prompts(plan: Plan) -> list[dict[str, Any]]:
    """The first samples' words exactly as training will see them, each with its tokens."""
    draws, settings = draws_of(plan), plan.settings.model
    pieces = Pieces(Tokenizer(plan.family.text[0].tokenizer_style))
    samples = min(SHOWN_PROMPTS, plan.steps * plan.samples_a_step)
    found = []
    for index in range(samples):
        prompt = draws.at(index).prompt
        if prompt == ZEROED:
            found.append({"text": NOTHING, "chunks": [], "cut": 0})
        else:
            found.append(pieces.chunks(prompt, int(settings.max_token_length), settings.long_prompts))
    return found
