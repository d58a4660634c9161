"""What an inpainting model sees of a training picture: a mask, and the picture with the masked part left out."""
from __future__ import annotations

import random

import torch
from torch import Tensor

from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.latents import Latents, load_pixels
from lib_sdtrain.data.randomness import python_random, torch_generator
from lib_sdtrain.model.family import Family
from lib_sdtrain.train.noise import role_of

WHOLE_SHARE = 0.25
"""Share of wholly masked pictures under `mixed`: that of the published SD1 and SD2 inpainting models."""


def draw_mask(rule: str, size: tuple[int, int], rng: random.Random) -> Tensor:
    """A mask (H, W) of 0 (seen) and 1 (to be filled in) for a picture of `size` (W, H).

    `shapes` is the rule of diffusers' inpainting DreamBooth: a rectangle or ellipse of any size, wholly inside.
    """
    width, height = size
    mask = torch.zeros(height, width)
    if rule == "whole" or (rule == "mixed" and rng.random() < WHOLE_SHARE):
        return mask + 1
    half_w, half_h = rng.randint(0, width) / 2, rng.randint(0, height) / 2
    x, y = rng.uniform(half_w, width - half_w), rng.uniform(half_h, height - half_h)
    across = (torch.arange(width) + 0.5 - x).abs()[None] / max(half_w, 0.5)
    down = (torch.arange(height) + 0.5 - y).abs()[:, None] / max(half_h, 0.5)
    inside = torch.maximum(across, down) <= 1 if rng.random() < 0.5 else across**2 + down**2 <= 1
    mask[inside] = 1
    return mask


def hidden_picture(
    draw: Draw, size: tuple[int, int], latents: Latents, family: Family, keyed_by: tuple[str, int]
) -> Tensor:
    """(5, h, w): the mask at the latents' `size` (h, w), then the scaled latents of the picture without what it hides.

    `keyed_by` is (rule, seed). The hidden part is grey (0), as LDM leaves it.
    """
    rule, seed = keyed_by
    step = family.vae.downscale
    target = size[1] * step, size[0] * step
    mask = draw_mask(rule, target, python_random(seed, f"{role_of(draw)}mask", draw.index))
    pixels = load_pixels(draw, latents.data)
    mean, std = latents.encode(pixels * (1 - mask)).float().chunk(2)
    noise = torch.randn(mean.shape, generator=torch_generator(seed, f"{role_of(draw)}hidden latent", draw.index))
    return torch.cat([mask[None, ::step, ::step], (mean + std * noise) * family.scale_factor])
