"""From draws to what one micro-step trains on. Every random number is keyed by the sample's index."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.data.randomness import torch_generator


@dataclass(frozen=True)
class Batch:
    """A micro-batch on the CPU: instance samples, then the class samples that go with them.

    latents and noise (B, 4, h, w) float32, timesteps (B,) int64, is_class (B,) bool, prompts B texts.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    is_class: Tensor
    prompts: tuple[str, ...]


def make_batch(
    draws: Sequence[Draw], latents: Latents, scale_factor: float, seed: int, noise_offset: float = 0.0,
    timesteps: int = 1000,
) -> Batch:  # fmt: skip
    """The batch of these draws: latent sample, noise and timestep of each are keyed by its index and role."""
    clean = torch.stack([latents.sample(draw, seed, scale_factor) for draw in draws])
    return Batch(
        clean,
        torch.stack([noise_for(draw, clean.shape[1:], seed, noise_offset) for draw in draws]),
        torch.tensor([timestep_for(draw, seed, timesteps) for draw in draws]),
        torch.tensor([draw.is_class for draw in draws]),
        tuple(draw.prompt for draw in draws),
    )


def _role(draw: Draw) -> str:
    return "class " if draw.is_class else ""


def noise_for(draw: Draw, shape: torch.Size, seed: int, offset: float) -> Tensor:
    """Gaussian noise (C, h, w); with `offset` s, plus s times one number a channel (Guttenberg 2023).

    The sum is the target too.
    """
    generator = torch_generator(seed, f"{_role(draw)}noise", draw.index)
    noise = torch.randn(shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn(shape[0], 1, 1, generator=generator)
    return noise


def timestep_for(draw: Draw, seed: int, timesteps: int) -> int:
    """A uniform timestep."""
    generator = torch_generator(seed, f"{_role(draw)}timestep", draw.index)
    return int(torch.randint(timesteps, (1,), generator=generator))
