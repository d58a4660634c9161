"""What text encoders that are not trained say of captions: kept in memory or on disk, the same bits as anew."""
from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.shards import ShardStore
from lib_sdtrain.model.family import TextConfig
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.mapped import digest_tensor
from lib_sdtrain.model.text import Encoded
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.embeddings import Inversions
from lib_sdtrain.train.encoding import DISK, UNCACHED, cache_folder
from lib_sdtrain.train.plan import Plan

KEPT = 4096
"""Chunks of 75 tokens of each encoder in memory; one of SD1 takes 236 KB."""
Chunk = tuple[int, ...]


class TextCache:
    """Encoded chunks by encoder and ids. In memory the last KEPT; with a `store` all of them are on disk too.

    `keys` tell the encoders on disk apart; `pooled` says which of them have a pooled output. Nothing is kept without
    `keeps`.
    """

    def __init__(self, pooled: Sequence[bool], keeps: bool = True) -> None:
        self.keeps, self.keys, self.store, self._pooled = keeps, [""] * len(pooled), None, pooled
        self._memory: list[OrderedDict[Chunk, Encoded]] = [OrderedDict() for _ in pooled]

    def use_disk(self, store: ShardStore, keys: Sequence[str]) -> None:
        """Keep what comes from now on on disk too."""
        self.store, self.keys = store, list(keys)

    def get(self, index: int, chunk: Chunk, device: torch.device) -> Encoded | None:
        """What encoder `index` said of a chunk: hidden (1, 77, width), pooled (1, width) or None.

        Raises `DamagedShard` for what is not as it was written.
        """
        found = self._memory[index].get(chunk)
        if found is None and self.store is not None:
            found = self._read(index, chunk, device)
            if found is not None:
                self._remember(index, chunk, found)
        return found

    def put(self, index: int, chunk: Chunk, said: Encoded) -> None:
        """Keep what an encoder said."""
        if not self.keeps:
            return
        self._remember(index, chunk, said)
        if self.store is not None:
            self.store.put(self._name(index, chunk, "hidden"), said.hidden.cpu().contiguous())
            if said.pooled is not None:
                self.store.put(self._name(index, chunk, "pooled"), said.pooled.cpu().contiguous())

    def most(self) -> int:
        """How many chunks of one encoder are in memory, at most."""
        return max(map(len, self._memory))

    def flush(self) -> None:
        """Write what is waiting."""
        if self.store is not None:
            self.store.flush()

    def _remember(self, index: int, chunk: Chunk, said: Encoded) -> None:
        memory = self._memory[index]
        memory[chunk] = said
        if len(memory) > KEPT:
            memory.popitem(last=False)

    def _name(self, index: int, chunk: Chunk, part: str) -> str:
        return hashlib.sha256(f"{self.keys[index]} {part} {chunk}".encode()).hexdigest()

    def _read(self, index: int, chunk: Chunk, device: torch.device) -> Encoded | None:
        hidden = self.store.get(self._name(index, chunk, "hidden"))
        pooled = self.store.get(self._name(index, chunk, "pooled")) if self._pooled[index] else None
        if hidden is None or (self._pooled[index] and pooled is None):
            return None
        return Encoded(hidden.to(device), None if pooled is None else pooled.to(device))


def keeps_text(settings: RunSettings) -> bool:
    """Whether anything is kept."""
    return settings.data.cache_text_embeddings != UNCACHED


def wants_disk(settings: RunSettings) -> bool:
    """Whether it is kept on disk."""
    return settings.data.cache_text_embeddings == DISK


def known_before(plan: Plan, draws: Draws, samples: int) -> bool:
    """Whether what frozen encoders say of all captions is made before the `samples` to come; then they are put away.

    On a CPU that frees memory only where they are let go for good, and it takes no time only where the samples say
    every caption anyway: each is said once, then or now.
    """
    words = draws.all_words() if frozen_encoders(plan) else None
    if words is None or not keeps_text(plan.settings):
        return False
    if wants_disk(plan.settings):
        return True
    if plan.device != "cpu":
        return chunks_at_most(plan) < KEPT
    return lets_go(plan) and len({"", *words}) <= samples


def frozen_encoders(plan: Plan) -> dict[str, TextConfig]:
    """The text encoders that say the same of a caption at every step. None does while an embedding is trained."""
    settings = plan.settings
    return {name: text for name, text in zip(TEXT_ENCODERS, plan.family.text, strict=False)
            if not settings.embedding.name and not settings.method.trains(name)}  # fmt: skip


def lets_go(plan: Plan) -> bool:
    """Whether encoders that are put away are asked no more: nothing is drawn, and all that they said is in memory."""
    return not plan.settings.preview.prompts and chunks_at_most(plan) < KEPT


def chunks_at_most(plan: Plan) -> int:
    """How many chunks there may be of all captions: each may be as long as the run lets it, each may be another."""
    class_pictures = sum(len(material.class_pictures) for material in plan.materials) + sum(plan.missing_class)
    forms = 2 if plan.settings.data.replace_words else 1
    return (1 + plan.pictures + class_pictures) * forms * (int(plan.settings.model.max_token_length) // 75)


def text_folder(plan: Plan, outputs: Path) -> Path:
    """Where text embeddings are kept on disk."""
    return cache_folder(plan, outputs) / "text"


def text_keys(plan: Plan, encoders: Sequence[nn.Module], inversions: Inversions) -> list[str]:
    """What the bits that each encoder says depend on besides the ids: its weights, embeddings, clip skip, and how it is
    computed.
    """
    settings = plan.settings
    how = " ".join((plan.family.name, str(settings.model.clip_skip), plan.device, settings.train.mixed_precision,
                    torch.__version__))
    keys = []
    for name, encoder in zip(TEXT_ENCODERS, encoders, strict=False):
        digest = hashlib.sha256(how.encode())
        for key, value in (*encoder.state_dict().items(), *(("", vectors) for vectors in inversions.fixed[name])):
            digest_tensor(digest, key, value)
        keys.append(digest.hexdigest())
    return keys
