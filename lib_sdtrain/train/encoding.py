"""The VAE's part in training: pictures in, latent distributions out, and then out of the way."""
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lib_sdtrain.data.draws import Draw, Draws
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.train.plan import Plan


def latents_of(plan: Plan, model: LoadedModel, outputs: Path) -> Latents:
    """Latents of a run's pictures; `cache_latents: disk` keeps them below `outputs` unless cache_dir says where."""
    vae, data = model.vae, plan.settings.data

    @torch.no_grad()
    def encode(pixels: Tensor) -> Tensor:
        vae.to(plan.device, torch.float32).eval()
        distribution = vae.encode(pixels[None].to(plan.device)).latent_dist
        return torch.cat([distribution.mean[0], distribution.std[0]]).cpu()

    folder = Path(data.cache_dir).expanduser() if data.cache_dir else outputs / "latents"
    if data.cache_latents != "disk":
        return Latents(encode, data, vae_key="")
    return Latents(encode, data, vae_fingerprint(vae), folder)


def vae_fingerprint(vae: nn.Module) -> str:
    """A hash of the autoencoder's weights: another VAE does not find this one's latents in the cache."""
    digest = hashlib.sha256()
    for name, value in vae.state_dict().items():
        digest.update(name.encode())
        digest.update(memoryview(value.detach().cpu().contiguous().view(torch.uint8).numpy().reshape(-1)))
    return digest.hexdigest()


def draws_to_encode(draws: Draws, plan: Plan, first: int, steps: int) -> Iterator[Draw]:
    """What is cached before training: of a short rest of a run what it will see, else every picture in each form."""
    if plan.settings.data.cache_latents == "none":
        return
    samples = plan.samples_a_step * steps
    if samples < plan.pictures:
        for index in range(first, first + samples):
            yield draws.at(index)
            if draw := draws.class_at(index):
                yield draw
        return
    yield from draws.all_forms()


def free_vae(plan: Plan, model: LoadedModel) -> None:
    """Take the VAE off the device when all latents are cached; previews bring it back for a moment.

    An inpainting model needs it at every step.
    """
    if plan.settings.data.cache_latents != "none" and plan.family.variant == "base":
        model.vae.to("cpu")
