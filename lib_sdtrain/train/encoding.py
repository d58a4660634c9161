"""The VAE's part in training: pictures in, latent distributions out, and then out of the way."""
from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from lib_sdtrain.data.draws import Draw, Draws
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.data.shards import ShardStore
from lib_sdtrain.model.build import LoadedModel, build_vae
from lib_sdtrain.model.keys import VAE, part_rows
from lib_sdtrain.model.mapped import digest_tensor
from lib_sdtrain.train.convolutions import choose_encoder, forget_encoder
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.starting import vae_source

DISK, UNCACHED = "disk", "none"


def latents_of(plan: Plan, model: LoadedModel, outputs: Path) -> Latents:
    """Latents of a run's pictures; `cache_latents: disk` keeps them below `outputs` unless cache_dir says where."""

    loading = threading.Lock()  # new crops are encoded beside training

    @torch.no_grad()
    def encode(pixels: Tensor) -> Tensor:
        with loading:
            vae = loaded_vae(plan, model)
            vae.to(plan.device, torch.float32).eval()
            choose_encoder(vae, plan.device, plan.settings)
        distribution = vae.encode(pixels[None].to(plan.device)).latent_dist
        return torch.cat([distribution.mean[0], distribution.std[0]]).cpu()

    data = plan.settings.data
    if data.cache_latents != DISK:
        return Latents(encode, data, vae_key="")
    return Latents(encode, data, vae_fingerprint(plan), ShardStore(cache_folder(plan, outputs)))


def cache_folder(plan: Plan, outputs: Path) -> Path:
    """Where latents are kept on disk."""
    chosen = plan.settings.data.cache_dir
    return Path(chosen).expanduser() if chosen else outputs / "latents"


def loaded_vae(plan: Plan, model: LoadedModel) -> nn.Module:
    """The model's VAE, read from its file now when the model was loaded without."""
    if next(model.vae.parameters()).is_meta:
        model.vae = build_vae(plan.checkpoint, plan.device, torch.float32, vae_source(plan))
    return model.vae


def vae_fingerprint(plan: Plan) -> str:
    """A hash of the autoencoder's weights in their file: another VAE does not find this one's latents in the cache."""
    source = vae_source(plan) or plan.checkpoint
    digest = hashlib.sha256()
    for row in part_rows(plan.family)[VAE]:
        digest_tensor(digest, row.key, source.tensor(row.key))
    return digest.hexdigest()


def vae_needed(plan: Plan) -> bool:
    """Whether the VAE is loaded with the model. Where latents are on disk and it draws nothing it waits until there is
    something to encode (`loaded_vae`).
    """
    settings = plan.settings
    draws_pictures = bool(settings.preview.prompts) or any(plan.missing_class)
    return settings.data.cache_latents != DISK or draws_pictures or plan.family.variant != "base"


def draws_to_encode(draws: Draws, plan: Plan, first: int, steps: int) -> Iterator[Draw]:
    """What is cached for so many steps: each form of each picture, or what they see where that is less."""
    if plan.settings.data.cache_latents == UNCACHED:
        return
    samples, refreshed = plan.samples_a_step * steps, draws.refreshed(first)
    with_class = any(material.class_pictures for material in draws.materials)
    seen = samples * (2 if with_class else 1)
    if next(islice(draws.all_forms(refreshed), seen, None), None) is None:
        yield from draws.all_forms(refreshed)
        return
    for index in range(first, first + samples):
        yield draws.at(index)
        if draw := draws.class_at(index):
            yield draw


def free_vae(plan: Plan, model: LoadedModel) -> None:
    """Take the VAE off the device when latents are cached; previews bring it back for a moment. Where there will be
    none its weights are let go.

    An inpainting model needs it at every step, and new crops while training goes on.
    """
    settings = plan.settings
    loaded = not next(model.vae.parameters()).is_meta and not settings.data.refresh_crops
    if loaded and settings.data.cache_latents != UNCACHED and plan.family.variant == "base":
        forget_encoder(model.vae)
        model.vae.to("cpu" if settings.preview.prompts else "meta")
