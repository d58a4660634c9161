"""From a checkpoint to modules (diffusers' UNet and VAE, transformers' text encoders), and back to its keys.

Modules are made without initialising weights and filled tensor by tensor, so that loading costs one copy. diffusers
and transformers are imported where a module is made, and only what that module needs.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import UserError
from lib_sdtrain.imports import quick_imports
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import EPSILON, V_PREDICTION, Family, TextConfig, UNetConfig, VAEConfig
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, Row, part_rows
from lib_sdtrain.model.keys.unet import PREFIX as UNET_PREFIX
from lib_sdtrain.model.keys.vae import PREFIX as VAE_PREFIX
from lib_sdtrain.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

PAGES = 2**27
"""Bytes of a file that are in this process's memory at most while they are copied from it."""
TITLES = {UNET: "UNet", VAE: "VAE", TEXT_ENCODERS[0]: "text encoder", TEXT_ENCODERS[1]: "second text encoder"}
# What may stand in these places must be known; beside the text encoders files carry scales and projections.
_CLOSED = (UNET_PREFIX, *(f"{VAE_PREFIX}{name}." for name in ("encoder", "decoder", "quant_conv", "post_quant_conv")))


class TensorSource(Protocol):
    """Where a module's weights come from: a checkpoint, or a VAE's own file."""

    path: Path

    def keys(self) -> list[str]:
        """LDM/SGM keys."""

    def tensor(self, key: str) -> Tensor:
        """The tensor of a key."""

    def forget_pages(self) -> None:
        """Take what was read out of this process's memory; it is read again where it is asked for."""


@dataclass
class LoadedModel:
    """A whole model in memory. `text_encoders` and `tokenizers` have one item for SD1 and SD2, two for SDXL."""

    family: Family
    unet: UNet2DConditionModel
    text_encoders: list[CLIPTextModel]
    tokenizers: list[Tokenizer]
    vae: AutoencoderKL
    checkpoint: Checkpoint

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The modules by the names that the key tables use."""
        texts = dict(zip(TEXT_ENCODERS, self.text_encoders, strict=False))
        return {UNET: self.unet, VAE: self.vae, **texts}


def unet_config(config: UNetConfig, sample_size: int = 64) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel."""
    cross, plain = "CrossAttn", ""
    depth = config.transformer_depth
    # diffusers takes the middle's depth from the last level, where SD1 and SD2 have no attention of their own
    depths = [*(max(1, d) for d in depth[:-1]), depth[-1] or config.middle_depth]
    if depths[-1] != config.middle_depth:
        raise UserError(
            f"{config.middle_depth} transformer blocks in the UNet's middle after {depth[-1]} are not supported"
        )
    # diffusers' attention_head_dim means the number of heads (a misnomer it keeps for compatibility)
    arguments = {
        "sample_size": sample_size, "in_channels": config.in_channels, "out_channels": config.out_channels,
        "block_out_channels": config.channels, "layers_per_block": list(config.num_res_blocks),
        "down_block_types": [f"{cross if d else plain}DownBlock2D" for d in depth],
        "up_block_types": [f"{cross if d else plain}UpBlock2D" for d in reversed(depth)],
        "transformer_layers_per_block": depths,
        "cross_attention_dim": config.context_dim, "attention_head_dim": list(config.heads or ()),
        "use_linear_projection": config.linear_projection,
    }
    if config.adm_in_channels is not None:
        arguments |= {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.adm_in_channels,
        }
    return arguments


def vae_config(config: VAEConfig, scale_factor: float) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL."""
    levels = len(config.ch_mult)
    return {
        "in_channels": config.in_channels, "out_channels": config.out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": config.channels, "layers_per_block": config.num_res_blocks,
        "latent_channels": config.z_channels, "scaling_factor": scale_factor, "force_upcast": False,
    }


def text_config(config: TextConfig) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig."""
    return {
        "vocab_size": config.vocab_size, "hidden_size": config.width, "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "max_position_embeddings": config.positions, "hidden_act": config.activation,
        "projection_dim": config.projection or config.width, "layer_norm_eps": 1e-5,
    }


def empty_module(family: Family, part: str) -> nn.Module:
    """A module of the family on the meta device: shapes without memory."""
    if part == UNET:
        with quick_imports():
            from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        with torch.device("meta"):
            return UNet2DConditionModel(**unet_config(family.unet))
    if part == VAE:
        with quick_imports():
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        with torch.device("meta"):
            return AutoencoderKL(**vae_config(family.vae, family.scale_factor))
    with quick_imports():
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    config = family.text[TEXT_ENCODERS.index(part)]
    made = CLIPTextModelWithProjection if config.projection else CLIPTextModel
    with torch.device("meta"):
        return made(CLIPTextConfig(**text_config(config)))


def empty_modules(family: Family) -> dict[str, nn.Module]:
    """Every module of the family on the meta device."""
    return {part: empty_module(family, part) for part in part_rows(family)}


def check_keys(rows: Iterable[Row], source: TensorSource, part: str) -> None:
    """Raise `UserError` when the part is missing, incomplete, or has tensors that no module of its kind has."""
    present, known = set(source.keys()), {row.key for row in rows}
    missing = sorted(known - present)
    where = str(source.path)
    if len(missing) == len(known):
        fix = "name one with model.vae, or bake one in" if part == VAE else "give a whole checkpoint"
        raise UserError(f"it has no {TITLES[part]}", where=where, fix=fix)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"the tensor {missing[0]}{more} is missing", where=where)
    closed = tuple(prefix for prefix in _CLOSED if any(key.startswith(prefix) for key in known))
    strangers = sorted(key for key in present - known if key.startswith(closed)) if closed else []
    if strangers:
        raise UserError(f"no {TITLES[part]} of Stable Diffusion has the tensor {strangers[0]}", where=where)


def module_state(
    rows: Iterable[Row], source: TensorSource, module: nn.Module, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The module's parameters from the source's tensors, each its own memory in `dtype`.

    Raises `UserError` naming the first tensor that does not fit.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    state: dict[str, Tensor] = {}
    copied = 0
    for row in rows:
        try:
            parts = row.to_module(source.tensor(row.key), shapes)
        except ValueError as error:
            raise UserError(str(error), where=str(source.path)) from error
        state |= {name: part.to(dtype, copy=True).contiguous() for name, part in parts.items()}
        copied += sum(part.nbytes for part in parts.values())
        if copied > PAGES:
            source.forget_pages()
            copied = 0
    source.forget_pages()
    return state


def fill(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a meta module its weights, frozen; buffers that no file need carry (position ids) are made.

    Raises `ValueError` when a parameter is left without weights.
    """
    module.load_state_dict(state, strict=False, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            owner, _, last = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()
            module.get_submodule(owner).register_buffer(last, positions, persistent=name in module.state_dict())
    left = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if left:
        raise ValueError(f"no weights for {left[0]} and {len(left) - 1} more")
    module.requires_grad_(False)


def build_part(
    part: str, checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype,
    source: TensorSource | None = None,
) -> nn.Module:
    """One module of a checkpoint, frozen and in evaluation mode; its weights from `source` where one is given.

    Raises `UserError` when the weights are missing, incomplete or do not fit.
    """
    source = source or checkpoint
    rows = part_rows(checkpoint.family)[part]
    check_keys(rows, source, part)
    if part == UNET and checkpoint.family.unet.heads is None:
        raise UserError(
            "its UNet is of no published size, and nothing tells the number of attention heads",
            where=str(checkpoint.path), fix="put the model's LDM .yaml beside it, under the same name",
        )
    module = empty_module(checkpoint.family, part)
    fill(module, module_state(rows, source, module, dtype))
    return module.to(device).eval()


def build_unet(checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """The UNet (`build_part`)."""
    return build_part(UNET, checkpoint, device, dtype)


def build_vae(
    checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype, vae: TensorSource | None = None
) -> AutoencoderKL:
    """The autoencoder (`build_part`), from a file of its own where one is given (`vae_file.open_vae`)."""
    return build_part(VAE, checkpoint, device, dtype, vae)


def build_text_encoders(
    checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype
) -> list[CLIPTextModel]:
    """The text encoders (`build_part`), in the family's order."""
    return [build_part(part, checkpoint, device, dtype) for part in TEXT_ENCODERS[: len(checkpoint.family.text)]]


def load_model(
    checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype, vae: TensorSource | None = None,
    with_vae: bool = True, unet_device: str | None = None,
) -> LoadedModel:
    """All modules of a checkpoint, frozen, in evaluation mode; the VAE from a file of its own where one is given.

    Without `with_vae` the VAE has no weights (it is on the meta device), for who may do without. `unet_device` is where
    the UNet is to be, if not with the rest.
    An SD2 whose prediction type nothing names is asked (`probe_prediction`). Raises `UserError` for what is missing
    or unknown.
    """
    family = checkpoint.family
    unet = build_unet(checkpoint, unet_device or device, dtype)
    texts = build_text_encoders(checkpoint, device, dtype)
    widths = sum(text.width for text in family.text)
    if family.unet.context_dim != widths:
        raise UserError(
            f"its UNet reads text of width {family.unet.context_dim}, its text encoders write {widths}",
            where=str(checkpoint.path), fix="give a checkpoint with its own text encoders",
        )
    tokenizers = [Tokenizer(config.tokenizer_style) for config in family.text]
    if family.prediction_guessed:
        family = family.with_prediction_type(probe_prediction(unet))
    autoencoder = build_vae(checkpoint, device, dtype, vae) if with_vae else empty_modules(family)[VAE]
    return LoadedModel(family, unet, texts, tokenizers, autoencoder, checkpoint)


@torch.no_grad()
def probe_prediction(unet: UNet2DConditionModel) -> str:
    """What an SD2 UNet predicts, told as the WebUI tells it: asked at the last step for a flat grey latent, a
    v-predicting one answers far below its input."""
    like = next(unet.parameters())
    x = torch.full((1, unet.config.in_channels, 8, 8), 0.5, device=like.device, dtype=like.dtype)
    context = torch.full((1, 2, unet.config.cross_attention_dim), 0.5, device=like.device, dtype=like.dtype)
    step = torch.tensor([999], device=like.device)
    answer = unet(x, step, encoder_hidden_states=context, return_dict=False)[0]
    return V_PREDICTION if (answer - x).float().mean() < -1 else EPSILON


def settled(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its prediction type settled, where only the weights can tell (`probe_prediction`)."""
    if not checkpoint.family.prediction_guessed:
        return checkpoint
    unet = build_unet(checkpoint, "cpu", torch.float32)
    return replace(checkpoint, family=checkpoint.family.with_prediction_type(probe_prediction(unet)))


def to_file_tensors(part: str, module: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The checkpoint's keys of a part with the module's weights, in the file's shapes (not yet its dtypes)."""
    state = module.state_dict()
    return {
        row.key: row.to_file(state, checkpoint.shape(row.key)) for row in part_rows(checkpoint.family)[part]
    }
