"""What the UNet is told while training: captions through the text encoders, in the WebUI's own form."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from lib_sdtrain.model import text
from lib_sdtrain.model.build import LoadedModel

CHUNK = 75
KEPT = 4096


class PromptEncoder:
    """Captions to hidden states (B, 77, width). What a frozen encoder says of a caption is kept."""

    def __init__(self, model: LoadedModel, clip_skip: int, trained: bool) -> None:
        self.model, self.clip_skip, self.trained = model, clip_skip, trained
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Hidden states of each prompt; equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        if self.trained:
            states = self._encode(unique)
        else:
            with torch.no_grad():
                states = torch.cat([self._remembered(prompt) for prompt in unique])
        rows = [unique.index(prompt) for prompt in prompts]
        return states[torch.tensor(rows, device=states.device)]

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Framed token ids (B, 77); what does not fit into one chunk is cut off."""
        tokenizer = self.model.tokenizers[0]
        return torch.tensor([tokenizer.frame(tokenizer.encode(prompt)[:CHUNK]) for prompt in prompts])

    def _encode(self, prompts: Sequence[str]) -> Tensor:
        encoder = self.model.text_encoders[0]
        ids = self.ids(prompts).to(next(encoder.parameters()).device)
        return text.encode(encoder, self.model.family.text[0], ids, self.clip_skip).hidden

    def _remembered(self, prompt: str) -> Tensor:
        if prompt not in self._kept:
            self._kept[prompt] = self._encode([prompt])
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[prompt]
