"""The computations of a run whose memory counts, on models without weights: a training step, the VAE, a preview."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils import checkpoint

from lib_sdtrain.model import text
from lib_sdtrain.model.build import empty_module
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA, MethodSettings
from lib_sdtrain.train.lora_layers import attach
from lib_sdtrain.train.memory.counting import Moment, worst_moments
from lib_sdtrain.train.memory.half import HalfPrecision

TOKENS = 77
_ONE_PLAY = Lock()  # at a time: see `_meta_module`
SMALL = 2**26
"""Weights of a model up to which it is quicker to compute than to have torch work out every shape in Python."""


@dataclass(frozen=True)
class Step:
    """What decides the memory of a training step beside its size: what is trained and how it is computed."""

    method: MethodSettings
    checkpointing: bool = False
    half: bool = False
    in_backward: bool = False


def step_moments(family: Family, step: Step) -> list[Moment]:
    """A training step: gradients and what is kept for them, without weights, optimizer and average."""
    names = [UNET, *TEXT_ENCODERS[: len(family.text)]]
    device = _device(family)
    modules = {name: _module(family, name, device, step.checkpointing) for name in names}
    beside = [layers for name, module in modules.items() for layers in _prepared(family, name, module, step.method)]
    known = [tensor for module in (*modules.values(), *beside) for tensor in _held_by(module)]
    for parameter in known if step.in_backward else ():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_forget)
    if step.half:
        HalfPrecision([*modules.values(), *beside], list(modules.values())[1:])

    texts = {name: (module, _is_trained(name, step.method)) for name, module in modules.items() if name != UNET}

    def play(batch: int, side: int) -> None:
        words = _words(family, texts, batch)
        noisy = torch.empty(batch, family.unet.in_channels, side, side, device=device)
        answer = _predict(family, modules[UNET], noisy, *words)
        answer.float().square().mean().backward()
        for parameter in known:
            parameter.grad = None

    with _meta_module():
        return worst_moments(play, known)


@contextmanager
def _meta_module() -> Iterator[None]:
    """torch before 2.2 asks for a module of the device's name when activations are computed twice."""
    with _ONE_PLAY:
        try:
            checkpoint._get_device_module("meta")
        except AttributeError:
            torch.meta = torch.cpu
        try:
            yield
        finally:
            vars(torch).pop("meta", None)


def draw_moments(family: Family) -> list[Moment]:
    """One step of a preview, with and without the prompt together."""
    device = _device(family)
    unet = _module(family, UNET, device).requires_grad_(False)

    @torch.no_grad()
    def play(batch: int, side: int) -> None:
        noisy = torch.empty(2 * batch, family.unet.in_channels, side, side, device=device)
        context = torch.empty(2 * batch, TOKENS, family.unet.context_dim, device=device)
        pooled = torch.empty(2 * batch, family.text[-1].projection, device=device) if family.is_sdxl else None
        _predict(family, unet, noisy, context, pooled)

    return worst_moments(play, _held_by(unet))


def vae_moments(family: Family, *, encode: bool) -> list[Moment]:
    """Pictures through the VAE, in or out."""
    device = _device(family)
    vae = _module(family, VAE, device).requires_grad_(False)
    scale = family.vae.downscale

    @torch.no_grad()
    def play(batch: int, side: int) -> None:
        if encode:
            vae.encode(torch.empty(batch, family.vae.in_channels, side * scale, side * scale, device=device))
        else:
            vae.decode(torch.empty(batch, family.vae.z_channels, side, side, device=device))

    return worst_moments(play, _held_by(vae))


class _FusedAttention:
    """Attention as devices compute it: the meta device would keep the whole table of scores. Called by diffusers."""

    def __call__(
        self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        residual, shape = hidden, hidden.shape
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
        keys = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            part.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(hidden), attn.to_k(keys), attn.to_v(keys))
        )
        fused = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)  # from torch 2.2 on
        found = fused(query, key, value)[0] if fused else scaled_dot_product_attention(query, key, value)
        found = attn.to_out[0](found.transpose(1, 2).flatten(2))
        if len(shape) == 4:
            found = found.transpose(1, 2).reshape(shape)
        return (found + residual if attn.residual_connection else found) / attn.rescale_output_factor


def _device(family: Family) -> str:
    """Where it is played: without numbers, or a small model with any numbers."""
    weights = sum(weight.numel() for name in (UNET, *TEXT_ENCODERS[: len(family.text)])
                  for weight in empty_module(family, name).parameters())  # fmt: skip
    return "cpu" if weights < SMALL else "meta"


def _module(family: Family, name: str, device: str, checkpointing: bool = False) -> nn.Module:
    module = empty_module(family, name).to_empty(device=device)
    for tensor in _held_by(module):
        tensor.detach().zero_()  # what happens to lie there could be slow to compute with, or be no token
    if name in (UNET, VAE):
        module.set_attn_processor(_FusedAttention())
    if checkpointing:
        enable = getattr(module, "enable_gradient_checkpointing", None) or module.gradient_checkpointing_enable
        enable()
        module.train()
    return module


def _prepared(family: Family, name: str, module: nn.Module, method: MethodSettings) -> list[nn.Module]:
    """Have trained what the method trains; the modules that come beside the model's own."""
    wanted = method.kind != EMBEDDING and method.trains(name)
    module.requires_grad_(method.kind == FULL and wanted)
    if method.kind == EMBEDDING and name != UNET:
        module.text_model.embeddings.position_embedding.requires_grad_(True)  # nearly as small as a word
    if method.kind != LORA or not wanted:
        return []
    return [attach(family, name, module, method, 0).to(next(module.parameters()).device)]


def _held_by(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


def _is_trained(name: str, method: MethodSettings) -> bool:
    """Whether anything in a text encoder is trained: itself, a LoRA on it, or words."""
    return method.kind == EMBEDDING or method.trains(name)


def _words(
    family: Family, encoders: Mapping[str, tuple[nn.Module, bool]], batch: int
) -> tuple[Tensor, Tensor | None]:
    """What the text encoders say; those that are not trained leave nothing behind."""
    said = []
    for (encoder, trained), config in zip(encoders.values(), family.text, strict=True):
        ids = torch.zeros(batch, TOKENS, dtype=torch.int64, device=next(encoder.parameters()).device)
        with torch.set_grad_enabled(trained):
            said.append(text.encode(encoder, config, ids))
    return torch.cat([one.hidden for one in said], dim=2), said[-1].pooled


def _predict(family: Family, unet: nn.Module, noisy: Tensor, context: Tensor, pooled: Tensor | None) -> Tensor:
    steps = torch.zeros(len(noisy), dtype=torch.int64, device=noisy.device)
    extra = {}
    if family.is_sdxl:
        sizes = torch.zeros(len(noisy), 6, device=noisy.device)
        extra["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    return unet(noisy, steps, encoder_hidden_states=context, return_dict=False, **extra)[0]
