"""What the UNet is told beside the noisy latents: words, and what else its family asks for.

All that tells families apart in a training step is here. SDXL: pooled text and six numbers of the picture (Podell et
al. 2023, section 2.2). Inpainting forms: the mask and the picture behind it, as five further channels.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.model.family import Family
from lib_sdtrain.train.batches import Batch
from lib_sdtrain.train.hidden_picture import hidden_picture
from lib_sdtrain.train.prompts import Words
from lib_sdtrain.train.sizes import sizes_of


@dataclass(frozen=True)
class Conditioning:
    """A family's conditioning. `mask_rule` is the named rule by which inpainting masks are drawn."""

    family: Family
    latents: Latents
    mask_rule: str

    def facts(self, draws: Sequence[Draw], size: tuple[int, int], seed: int) -> dict[str, Tensor]:
        """What a batch of draws carries for this family: `sizes` (B, 6), `hidden` (B, 5, h, w); `size` is (h, w).

        `seed` is that of the batch's noise: what is hidden follows it.
        """
        found = {}
        if self.family.is_sdxl:
            found["sizes"] = torch.tensor([sizes_of(draw) for draw in draws]).float()
        if self.family.variant == "inpainting":
            found["hidden"] = torch.stack([
                hidden_picture(draw, size, self.latents, self.family, (self.mask_rule, seed)) for draw in draws
            ])
        return found

    def predict(self, unet: nn.Module, noisy: Tensor, timesteps: Tensor, words: Words, batch: Batch) -> Tensor:
        """The UNet's answer (B, 4, h, w) to noisy latents (B, 4, h, w) at `timesteps` (B,)."""
        if batch.hidden is not None:
            noisy = torch.cat([noisy, batch.hidden.to(noisy)], dim=1)
        extra = {}
        if words.pooled is not None:
            extra["added_cond_kwargs"] = {"text_embeds": words.pooled, "time_ids": batch.sizes.to(noisy)}
        return unet(noisy, timesteps, encoder_hidden_states=words.context, return_dict=False, **extra)[0]
