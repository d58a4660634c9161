"""From a checkpoint to modules (diffusers' UNet and VAE, transformers' text encoders), and back to its keys.

Modules are made without initialising weights and filled tensor by tensor, so that loading costs one copy.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import Family, TextConfig, UNetConfig, VAEConfig
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, Row, part_rows
from lib_sdtrain.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel


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
    # diffusers' attention_head_dim means the number of heads (a misnomer it keeps for compatibility)
    arguments = {
        "sample_size": sample_size, "in_channels": config.in_channels, "out_channels": config.out_channels,
        "block_out_channels": config.channels, "layers_per_block": list(config.num_res_blocks),
        "down_block_types": [f"{cross if d else plain}DownBlock2D" for d in depth],
        "up_block_types": [f"{cross if d else plain}UpBlock2D" for d in reversed(depth)],
        "transformer_layers_per_block": [max(1, d) for d in depth],
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


def empty_modules(family: Family) -> dict[str, nn.Module]:
    """The family's modules on the meta device: shapes without memory."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            UNET: UNet2DConditionModel(**unet_config(family.unet)),
            VAE: AutoencoderKL(**vae_config(family.vae, family.scale_factor)),
        }
        for part, config in zip(TEXT_ENCODERS, family.text, strict=False):
            made = CLIPTextModelWithProjection if config.projection else CLIPTextModel
            modules[part] = made(CLIPTextConfig(**text_config(config)))
    return modules


def module_state(
    rows: Iterable[Row], checkpoint: Checkpoint, module: nn.Module, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The module's parameters from the checkpoint's tensors, each its own memory in `dtype`.

    Raises `UserError` naming the first tensors that are missing.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing = [row.key for row in rows if row.key not in checkpoint.file_keys]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"the tensor {missing[0]}{more} is missing", where=str(checkpoint.path))
    state: dict[str, Tensor] = {}
    for row in rows:
        try:
            parts = row.to_module(checkpoint.tensor(row.key), shapes)
        except ValueError as error:
            raise UserError(str(error), where=str(checkpoint.path)) from error
        state |= {name: part.to(dtype, copy=True).contiguous() for name, part in parts.items()}
    return state


def fill(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a meta module its weights; buffers that no file carries (position ids) are made."""
    for name, buffer in list(module.named_buffers()):
        if name.endswith("position_ids"):
            state.setdefault(name, torch.arange(buffer.shape[-1]).expand(buffer.shape).clone())
    module.load_state_dict(state, strict=False, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            owner = module.get_submodule(name.rpartition(".")[0])
            owner.register_buffer("position_ids", state[name], persistent=False)
    left = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if left:
        raise ValueError(f"no weights for {left[0]} and {len(left) - 1} more")
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def load_model(checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype) -> LoadedModel:
    """All modules of a checkpoint, frozen, in evaluation mode. Raises `UserError` for what is missing or unknown."""
    family = checkpoint.family
    if family.unet.heads is None:
        raise UserError(
            "its UNet is of no published size, and nothing tells the number of attention heads",
            where=str(checkpoint.path), fix="put the model's LDM .yaml beside it, under the same name",
        )
    modules = empty_modules(family)
    for part, rows in part_rows(family).items():
        fill(modules[part], module_state(rows, checkpoint, modules[part], dtype))
        modules[part].to(device).eval()
    tokenizers = [Tokenizer(config.tokenizer_style) for config in family.text]
    texts = [modules[part] for part, _ in zip(TEXT_ENCODERS, family.text, strict=False)]
    return LoadedModel(family, modules[UNET], texts, tokenizers, modules[VAE], checkpoint)


def to_file_tensors(part: str, module: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The checkpoint's keys of a part with the module's weights, in the file's shapes (not yet its dtypes)."""
    state = module.state_dict()
    return {
        row.key: row.to_file(state, checkpoint.shape(row.key)) for row in part_rows(checkpoint.family)[part]
    }


def with_family(model: LoadedModel, **changes: Any) -> LoadedModel:
    """The same modules under a changed family (another prediction type, say)."""
    return replace(model, family=replace(model.family, **changes))
