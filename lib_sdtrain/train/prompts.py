"""What the UNet is told while training: captions through the text encoders, in the WebUI's own form."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_sdtrain.model import text
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.text import Encoded

CHUNK = 75
KEPT = 4096


@dataclass(frozen=True)
class Words:
    """context (B, 77, width of all encoders together); pooled (B, width) for families that use it, else None."""

    context: Tensor
    pooled: Tensor | None = None


class PromptEncoder:
    """Captions to `Words` by the model's text encoders; `trained` names those whose weights change.

    What a frozen encoder says of a caption is kept.
    """

    def __init__(self, model: LoadedModel, clip_skip: int, trained: Collection[str] = ()) -> None:
        self.model, self.clip_skip = model, clip_skip
        names = TEXT_ENCODERS[: len(model.text_encoders)]
        self.trained = [name in trained for name in names]
        self._kept: list[OrderedDict[str, Encoded]] = [OrderedDict() for _ in names]

    def encode(self, prompts: Sequence[str]) -> Words:
        """The words of each prompt; equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        said = [self._said(index, unique) for index in range(len(self.trained))]
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=said[0].hidden.device)
        context = said[0].hidden if len(said) == 1 else torch.cat([one.hidden for one in said], dim=2)
        pooled = said[-1].pooled
        return Words(context[rows], None if pooled is None else pooled[rows])

    def ids(self, prompts: Sequence[str], index: int = 0) -> Tensor:
        """Framed token ids (B, 77) for encoder `index`; what does not fit into one chunk is cut off."""
        tokenizer = self.model.tokenizers[index]
        return torch.tensor([tokenizer.frame(tokenizer.encode(prompt)[:CHUNK]) for prompt in prompts])

    def _said(self, index: int, prompts: Sequence[str]) -> Encoded:
        if self.trained[index]:
            return self._encode(index, prompts)
        with torch.no_grad():
            rows = [self._remembered(index, prompt) for prompt in prompts]
        pooled = [row.pooled for row in rows if row.pooled is not None]
        return Encoded(torch.cat([row.hidden for row in rows]), torch.cat(pooled) if pooled else None)

    def _encode(self, index: int, prompts: Sequence[str]) -> Encoded:
        encoder = self.model.text_encoders[index]
        ids = self.ids(prompts, index).to(next(encoder.parameters()).device)
        return text.encode(encoder, self.model.family.text[index], ids, self.clip_skip)

    def _remembered(self, index: int, prompt: str) -> Encoded:
        kept = self._kept[index]
        if prompt not in kept:
            kept[prompt] = self._encode(index, [prompt])
            if len(kept) > KEPT:
                kept.popitem(last=False)
        return kept[prompt]
