"""From draws to what one micro-step trains on. Every random number is keyed by the sample's index."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.data.masks import mask_for
from lib_sdtrain.data.randomness import torch_generator
from lib_sdtrain.settings.run_method import LossSettings
from lib_sdtrain.train.noise import noise_for, perturbed, role_of


@dataclass(frozen=True)
class Batch:
    """A micro-batch on the CPU: instance samples, then the class samples that go with them.

    latents and noise (B, 4, h, w) float32, timesteps (B,) int64, is_class (B,) bool, prompts B texts, weights (B,) of
    the samples' losses. `mask` (B, 1, h, w) weighs the parts of a picture. `added` (B, 4, h, w) is what is added to the
    latents where that is not the noise. A family's own conditioning (`conditioning.py`): `sizes` (B, 6), `hidden`
    (B, 5, h, w).
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    is_class: Tensor
    prompts: tuple[str, ...]
    weights: Tensor
    added: Tensor | None = None
    sizes: Tensor | None = None
    hidden: Tensor | None = None
    mask: Tensor | None = None


def make_batch(
    draws: Sequence[Draw], latents: Latents, scale_factor: float, seed: int, loss: LossSettings, timesteps: int = 1000,
) -> Batch:  # fmt: skip
    """The batch of these draws: latent sample, noise and timestep of each are keyed by its index and role."""
    clean = torch.stack([latents.sample(draw, seed, scale_factor) for draw in draws])
    noise = torch.stack([noise_for(draw, latent, seed, loss) for draw, latent in zip(draws, clean, strict=True)])
    added = None
    if loss.input_perturbation:
        added = torch.stack([
            perturbed(draw, own, seed, loss.input_perturbation) for draw, own in zip(draws, noise, strict=True)
        ])
    return Batch(
        clean, noise,
        torch.tensor([timestep_for(draw, seed, timesteps) for draw in draws]),
        torch.tensor([draw.is_class for draw in draws]),
        tuple(draw.prompt for draw in draws),
        torch.tensor([draw.loss_weight for draw in draws]),
        added,
        mask=masks_of(draws, clean, latents.data.boxes_column, loss) if loss.masked else None,
    )


def masks_of(draws: Sequence[Draw], clean: Tensor, boxes_column: str, loss: LossSettings) -> Tensor:
    """How much each part of the latents `clean` (B, 4, h, w) counts, (B, 1, h, w)."""
    downscale = draws[0].target[0] // clean.shape[-1]
    return torch.stack([mask_for(draw, downscale, boxes_column, loss.unmasked_weight) for draw in draws])


def timestep_for(draw: Draw, seed: int, timesteps: int) -> int:
    """A uniform timestep."""
    generator = torch_generator(seed, f"{role_of(draw)}timestep", draw.index)
    return int(torch.randint(timesteps, (1,), generator=generator))
