"""What the UNet is told while training: captions through the text encoders, in the WebUI's own form."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.model import text
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.text import Encoded
from lib_sdtrain.settings.run import ModelSettings
from lib_sdtrain.train.embeddings import Inversions
from lib_sdtrain.train.long_prompts import chunks_of, empty_chunk, joined

KEPT = 4096
Chunk = tuple[int, ...]


@dataclass(frozen=True)
class Words:
    """context (B, tokens, width of all encoders together); pooled (B, width) for families that use it, else None.

    tokens: 77 for each chunk of 75 (`long_prompts.py`).
    """

    context: Tensor
    pooled: Tensor | None = None


class PromptEncoder:
    """Captions to `Words` by the model's text encoders; `trained` names those whose weights change.

    `inversions` are the embeddings that captions may name. What a frozen encoder says of a chunk is kept, unless an
    embedding is trained.
    """

    def __init__(
        self, model: LoadedModel, settings: ModelSettings, trained: Collection[str] = (),
        inversions: Inversions | None = None,
    ) -> None:
        self.inversions = inversions or Inversions(model)
        self.model, self.clip_skip = model, settings.clip_skip
        self.limit, self.form = int(settings.max_token_length), settings.long_prompts
        self.names = TEXT_ENCODERS[: len(model.text_encoders)]
        self.trained = [name in trained or self.inversions.trained is not None for name in self.names]
        self._kept: list[OrderedDict[Chunk, Encoded]] = [OrderedDict() for _ in self.names]

    def encode(self, prompts: Sequence[str]) -> Words:
        """The words of each prompt; equal prompts are encoded once. All get as many chunks as the longest has."""
        unique = list(dict.fromkeys(prompts))
        said = [self._said(index, chunks) for index, chunks in enumerate(self._chunks(unique))]
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=said[0].hidden.device)
        context = said[0].hidden if len(said) == 1 else torch.cat([one.hidden for one in said], dim=2)
        pooled = said[-1].pooled
        words = Words(context[rows], None if pooled is None else pooled[rows])
        return _without_dropped(words, prompts) if ZEROED in unique else words

    def _chunks(self, prompts: Sequence[str]) -> list[list[list[Chunk]]]:
        """Chunks by encoder and prompt, the same number everywhere."""
        tokenizers = self.model.tokenizers[: len(self.trained)]
        find = self.inversions.library.find
        found = [[chunks_of(tokenizer, prompt, self.limit, self.form, find) for prompt in prompts]
                 for tokenizer in tokenizers]  # fmt: skip
        most = max(len(chunks) for by_prompt in found for chunks in by_prompt)
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
        kept = self._kept[index]
        if chunk not in kept:
            kept[chunk] = self._encode(index, [chunk])
            if len(kept) > KEPT:
                kept.popitem(last=False)
        return kept[chunk]


def _without_dropped(words: Words, prompts: Sequence[str]) -> Words:
    """Zeros where a caption was dropped altogether."""
    kept = torch.tensor([prompt != ZEROED for prompt in prompts], device=words.context.device)
    pooled = None if words.pooled is None else words.pooled * kept[:, None]
    return Words(words.context * kept[:, None, None], pooled)
