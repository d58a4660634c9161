"""Prompts to tensors by the model's text encoders: chunks, embeddings, emphasis, SDXL's extras."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.family import TextConfig
from lib_sdtrain.model.text import encode
from lib_sdtrain.sample.chunks import Chunk, cut, empty_chunk
from lib_sdtrain.sample.conditioning import Cond
from lib_sdtrain.sample.embeddings import SDXL_PARTS, Library
from lib_sdtrain.settings.sample import SampleRequest


def emphasise(hidden: torch.Tensor, weights: torch.Tensor, mode: str) -> torch.Tensor:
    """Token vectors (B, T, C) times their weights (B, T).

    `Original` then brings the mean over everything back to what it was; `No norm` does not; other modes do nothing.
    """
    if mode not in ("Original", "No norm"):
        return hidden
    weighted = hidden * weights[..., None]
    return weighted * (hidden.mean() / weighted.mean()) if mode == "Original" else weighted


@contextmanager
def inserted(encoder: Any, chunks: Sequence[Chunk], key: str) -> Iterator[None]:
    """While open, the encoder sees the embeddings' vectors in place of the tokens that stand for them."""
    if not any(chunk.inserts for chunk in chunks):
        yield
        return

    def put(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for row, chunk in zip(output, chunks, strict=True):
            for offset, embedding in chunk.inserts:
                vectors = embedding.vectors_for(key)[: len(row) - offset - 1]
                row[offset + 1 : offset + 1 + len(vectors)] = vectors.to(row)
        return output

    handle = encoder.text_model.embeddings.token_embedding.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


class Encoded(NamedTuple):
    """hidden (texts, tokens, width), pooled (texts, width) or None, and the embeddings that were used."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None
    used: tuple[str, ...]


class EncodingCache:
    """Encoded texts of one model whose weights stay as they are; the oldest go first."""

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._known: dict[Hashable, Encoded] = {}

    def get(self, key: Hashable, make: Callable[[], Encoded]) -> Encoded:
        """What is known under `key`, made if nothing is."""
        if key not in self._known:
            while len(self._known) >= self._capacity:
                del self._known[next(iter(self._known))]
            self._known[key] = make()
        return self._known[key]


@dataclass
class TextReader:
    """encode(texts, negative) for one request and one picture size (width, height).

    `networks` tells apart the networks that are on the model, for the cache.
    """

    model: LoadedModel
    request: SampleRequest
    library: Library
    size: tuple[int, int]
    cache: EncodingCache
    networks: Hashable = ()
    used: list[str] = field(default_factory=list)
    """Names and short hashes of the embeddings, for every text and encoder that used them, latest first."""

    def __call__(self, texts: Sequence[str], negative: bool) -> list[Cond]:
        """The texts of one timeline. Emphasis is normalised over all; all get as many chunks as the longest.

        An empty negative prompt is nothing at all (zeros) to SDXL.
        """
        request, options = self.request, self.request.options
        key = (tuple(texts), self.networks, request.clip_skip, request.emphasis, options.comma_padding_backtrack,
               options.sdxl_clip_l_skip, self.library.names)
        hidden, pooled, used = self.cache.get(key, lambda: self._encoded(texts))
        self.used[:0] = used
        if not self.model.family.is_sdxl:
            return [Cond(row[None]) for row in hidden]
        if negative and not any(texts):
            hidden, pooled = torch.zeros_like(hidden), torch.zeros_like(pooled)
        sizes = self._sizes().to(hidden.device)
        return [Cond(row[None], vector[None], sizes) for row, vector in zip(hidden, pooled, strict=True)]

    def _sizes(self) -> torch.Tensor:
        width, height = self.size
        options = self.request.options
        sizes = [height, width, options.sdxl_crop_top, options.sdxl_crop_left, height, width]
        return torch.tensor([sizes], dtype=torch.float32)

    def _encoded(self, texts: Sequence[str]) -> Encoded:
        used: list[str] = []
        outputs = [self._by_encoder(index, texts, used) for index in range(len(self.model.text_encoders))]
        chunks = max(len(hidden) for hidden, _ in outputs)
        if any(len(hidden) != chunks for hidden, _ in outputs):
            raise ValueError("the text encoders cut the prompt into different numbers of chunks")
        pooled = [first for _, first in outputs if first is not None]
        joined = torch.cat([torch.cat(hidden, dim=1) for hidden, _ in outputs], dim=2)
        return Encoded(joined, pooled[-1] if pooled else None, tuple(used))

    def _by_encoder(
        self, index: int, texts: Sequence[str], listed: list[str]
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """The hidden states (B, 77, C) of every chunk, and the pooled output of the first."""
        tokenizer = self.model.tokenizers[index]
        all_chunks = [self._cut(text, tokenizer) for text in texts]
        count = max(len(chunks) for chunks in all_chunks)
        hidden, pooled, used = [], None, {}
        for place in range(count):
            row = [chunks[place] if place < len(chunks) else empty_chunk(tokenizer) for chunks in all_chunks]
            used |= {insert.embedding.name: insert.embedding for chunk in row for insert in chunk.inserts}
            states, first = self._encode_chunks(index, row)
            hidden.append(states)
            pooled = first if place == 0 else pooled
        listed[:0] = [embedding.listed for embedding in used.values()]
        return hidden, pooled

    def _cut(self, text: str, tokenizer: Any) -> list[Chunk]:
        backtrack = self.request.options.comma_padding_backtrack
        return cut(text, tokenizer, emphasis=self.request.emphasis, backtrack=backtrack, find=self.library.find)

    def _encode_chunks(self, index: int, chunks: list[Chunk]) -> tuple[torch.Tensor, torch.Tensor | None]:
        encoder, tokenizer = self.model.text_encoders[index], self.model.tokenizers[index]
        device = next(encoder.parameters()).device
        ids = torch.tensor([_padded(chunk.ids, tokenizer) for chunk in chunks], device=device)
        with inserted(encoder, chunks, SDXL_PARTS[index]):
            encoded = encode(encoder, self._config(index), ids, self.request.clip_skip)
        weights = torch.tensor([chunk.weights for chunk in chunks], device=device)
        hidden = emphasise(encoded.hidden.float(), weights, self.request.emphasis)
        return hidden, None if encoded.pooled is None else encoded.pooled.float()

    def _config(self, index: int) -> TextConfig:
        """SDXL's first encoder listens to clip skip only where the options say so."""
        config = self.model.family.text[index]
        if index == 0 and self.model.family.is_sdxl and self.request.options.sdxl_clip_l_skip:
            return replace(config, skippable=True)
        return config


def _padded(ids: list[int], tokenizer: Any) -> list[int]:
    """Everything after the first end token is padding where the encoder was trained with another padding token."""
    if tokenizer.pad_id == tokenizer.eos_id:
        return ids
    end = ids.index(tokenizer.eos_id)
    return [*ids[: end + 1], *[tokenizer.pad_id] * (len(ids) - end - 1)]
