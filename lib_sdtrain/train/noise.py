"""The noise that a sample is trained on, keyed by the sample's index. Shapes: (C, h, w)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.randomness import torch_generator
from lib_sdtrain.settings.run_method import LossSettings


def role_of(draw: Draw) -> str:
    """What the purposes of a draw's random numbers begin with: class samples share their index with another."""
    return "class " if draw.is_class else ""


def noise_for(draw: Draw, clean: Tensor, seed: int, loss: LossSettings) -> Tensor:
    """Gaussian noise in the form that `loss` asks for, for the scaled latents `clean`. It is the target too.

    First the offset (Guttenberg 2023): plus s times one number a channel. Then the pyramid (`pyramid_noise`).
    """
    generator = torch_generator(seed, f"{role_of(draw)}noise", draw.index)
    noise = torch.randn(clean.shape, generator=generator)
    if loss.noise_offset or loss.adaptive_noise_scale:
        strength = offset_strength(clean, loss, _uniform(draw, seed) if loss.noise_offset_random_strength else 1.0)
        noise = noise + strength * torch.randn(clean.shape[0], 1, 1, generator=generator)
    if loss.multires_noise_iterations:
        keyed = torch_generator(seed, f"{role_of(draw)}pyramid noise", draw.index)
        noise = pyramid_noise(noise, loss.multires_noise_iterations, loss.multires_noise_discount, keyed)
    return noise


def _uniform(draw: Draw, seed: int) -> float:
    return float(torch.rand(1, generator=torch_generator(seed, f"{role_of(draw)}noise offset", draw.index)))


def offset_strength(clean: Tensor, loss: LossSettings, share: float = 1.0) -> Tensor | float:
    """s, or with an adaptive scale a: max(0, s + a |mean of the channel|), (C, 1, 1) (kohya's form).

    `share` is the part of the fixed s that counts: 1, or a uniform random number for `random_strength`.
    """
    fixed = loss.noise_offset * share if share != 1.0 else loss.noise_offset
    if not loss.adaptive_noise_scale:
        return fixed
    return (fixed + loss.adaptive_noise_scale * clean.mean((1, 2), keepdim=True).abs()).clamp(min=0)


def pyramid_noise(noise: Tensor, levels: int, discount: float, generator: torch.Generator) -> Tensor:
    """Noise of several resolutions (Whitaker 2023, kohya's form), brought back to a standard deviation of 1.

    Level i = 0, 1, ... adds discount^i times Gaussian noise of the size divided by r^i, enlarged bilinearly; r is drawn
    anew from U(2, 4) at every level, and the last level is one of which a side is a single pixel.
    """
    height, width = noise.shape[1:]
    for level in range(levels):
        ratio = 2 + 2 * float(torch.rand(1, generator=generator))
        size = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
        coarse = torch.randn(noise.shape[0], *size, generator=generator)
        fine = functional.interpolate(coarse[None], size=(height, width), mode="bilinear")[0]
        noise = noise + discount**level * fine
        if 1 in size:
            break
    return noise / noise.std()


def perturbed(draw: Draw, noise: Tensor, seed: int, gamma: float) -> Tensor:
    """What is added to the latents under input perturbation: noise + gamma N (Ning et al. 2023, algorithm 1).

    The target stays the plain noise.
    """
    generator = torch_generator(seed, f"{role_of(draw)}input perturbation", draw.index)
    return noise + gamma * torch.randn(noise.shape, generator=generator)
