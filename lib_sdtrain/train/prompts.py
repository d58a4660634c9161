"""What the UNet is told while training: captions through the text encoders, in the WebUI's own form."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.data.shards import DamagedShard
from lib_sdtrain.errors import JobFailed
from lib_sdtrain.model import text
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.text import Encoded
from lib_sdtrain.settings.run import ModelSettings
from lib_sdtrain.train.embeddings import Inversions
from lib_sdtrain.train.long_prompts import chunks_of, empty_chunk, joined
from lib_sdtrain.train.text_cache import Chunk, TextCache


@dataclass(frozen=True)
class Words:
    """context (B, tokens, width of all encoders together); pooled (B, width) for families that use it, else None.

    tokens: 77 for each chunk of 75 (`long_prompts.py`).
    """

    context: Tensor
    pooled: Tensor | None = None


class PromptEncoder:
    """Captions to `Words` by the model's text encoders; `trained` names those whose weights change.

    `inversions` are the embeddings that captions may name. With `keeps`, what a frozen encoder says of a chunk is kept,
    unless an embedding is trained.
    """

    def __init__(
        self, model: LoadedModel, settings: ModelSettings, trained: Collection[str] = (),
        inversions: Inversions | None = None, keeps: bool = True,
    ) -> None:
        self.inversions = inversions or Inversions(model)
        self.model, self.clip_skip = model, settings.clip_skip
        self.limit, self.form = int(settings.max_token_length), settings.long_prompts
        self.names = TEXT_ENCODERS[: len(model.text_encoders)]
        self.trained = [name in trained or self.inversions.trained is not None for name in self.names]
        self.cache = TextCache([bool(config.projection) for config in model.family.text], keeps)
        self._away: torch.device | None = None

    def encode(self, prompts: Sequence[str], chunks: int = 1) -> Words:
        """The words of each prompt; equal prompts are encoded once. All get as many chunks as the longest has, and
        `chunks` at least.
        """
        unique = list(dict.fromkeys(prompts))
        said = [self._said(index, by_prompt) for index, by_prompt in enumerate(self._chunks(unique, chunks))]
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=said[0].hidden.device)
        context = said[0].hidden if len(said) == 1 else torch.cat([one.hidden for one in said], dim=2)
        pooled = said[-1].pooled
        words = Words(context[rows], None if pooled is None else pooled[rows])
        return _without_dropped(words, prompts) if ZEROED in unique else words

    def chunk_count(self, prompts: Sequence[str]) -> int:
        """How many chunks the longest of these prompts has."""
        return len(self._chunks(prompts)[0][0])

    def _chunks(self, prompts: Sequence[str], least: int = 1) -> list[list[list[Chunk]]]:
        """Chunks by encoder and prompt, the same number everywhere, and `least` of them at least."""
        tokenizers = self.model.tokenizers[: len(self.trained)]
        find = self.inversions.library.find
        found = [[chunks_of(tokenizer, prompt, self.limit, self.form, find) for prompt in prompts]
                 for tokenizer in tokenizers]  # fmt: skip
        most = max(least, *(len(chunks) for by_prompt in found for chunks in by_prompt))
        for tokenizer, by_prompt in zip(tokenizers, found, strict=True):
            for chunks in by_prompt:
                chunks += [empty_chunk(tokenizer)] * (most - len(chunks))
        return found

    def _said(self, index: int, prompts: Sequence[Sequence[Chunk]]) -> Encoded:
        """Joined hidden states of each prompt, and the pooled output of its first chunk."""
        count = len(prompts[0])
        chunks = [chunk for prompt in prompts for chunk in prompt]
        if self.trained[index]:
            found = self._encode(index, chunks)
        else:
            with torch.no_grad():
                rows = [self._remembered(index, chunk) for chunk in chunks]
            pooled = [row.pooled for row in rows if row.pooled is not None]
            found = Encoded(torch.cat([row.hidden for row in rows]), torch.cat(pooled) if pooled else None)
        hidden = joined(found.hidden.unflatten(0, (len(prompts), count)), self.form)
        return Encoded(hidden, None if found.pooled is None else found.pooled[::count])

    def _encode(self, index: int, chunks: Sequence[Chunk]) -> Encoded:
        encoder = self.model.text_encoders[index]
        device = next(encoder.parameters()).device
        added = self.inversions.vectors(self.names[index], device)
        return text.encode(
            encoder, self.model.family.text[index], torch.tensor(chunks).to(device), self.clip_skip, added
        )

    def _remembered(self, index: int, chunk: Chunk) -> Encoded:
        try:
            said = self.cache.get(index, chunk, self._device(index))
        except DamagedShard as error:
            raise JobFailed(
                f"cached text embeddings were damaged while training: {error}", where="data.cache_text_embeddings",
                fix="go on with the run: they are made again",
            ) from error
        if said is None:
            with self.at_hand():
                said = self._encode(index, [chunk])
            self.cache.put(index, chunk, said)
        return said

    @torch.no_grad()
    def remember(self, prompt: str) -> list[str]:
        """Have what the frozen encoders say of a prompt kept. What is kept is read, and made again where it is damaged:
        names of the files that were.
        """
        damaged = []
        for index, (chunks,) in enumerate(self._chunks([prompt])):
            for chunk in chunks if not self.trained[index] else ():
                try:
                    self.cache.get(index, chunk, self._device(index))
                except DamagedShard as error:
                    damaged.append(str(error))
                    self.cache.store.drop(str(error))
                self._remembered(index, chunk)
        return damaged

    def _frozen(self) -> list[Any]:
        return [encoder for encoder, trained in zip(self.model.text_encoders, self.trained, strict=True) if not trained]

    def _device(self, index: int) -> torch.device:
        """Where what an encoder says is wanted."""
        return self._away or next(self.model.text_encoders[index].parameters()).device

    def put_away(self, for_good: bool = False) -> None:
        """Take the frozen encoders off the device: what they say is kept. `at_hand` brings them back for a moment.

        Their weights are let go with `for_good`.
        """
        for encoder in self._frozen():
            self._away = self._away or next(encoder.parameters()).device
            encoder.to("meta" if for_good else "cpu")

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """While open, all encoders are on the device."""
        away, self._away = self._away, None
        try:
            for encoder in self._frozen() if away else ():
                encoder.to(away)
            yield
        finally:
            if away:
                self._away = away  # where memory ran out on the way, the encoders cannot tell
                self.put_away()


def _without_dropped(words: Words, prompts: Sequence[str]) -> Words:
    """Zeros where a caption was dropped altogether."""
    kept = torch.tensor([prompt != ZEROED for prompt in prompts], device=words.context.device)
    pooled = None if words.pooled is None else words.pooled * kept[:, None]
    return Words(words.context * kept[:, None, None], pooled)
