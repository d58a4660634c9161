"""A diffusers folder seen as a checkpoint: its architecture from the configurations, its tensors under LDM/SGM keys."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.model.family import (
    EPSILON,
    PUBLISHED,
    SD1,
    SD2,
    SDXL,
    V_PREDICTION,
    Family,
    NoiseSchedule,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, part_rows
from lib_sdtrain.model.pieces import Piece, PiecedTensors, pieces_of
from lib_sdtrain.model.tensorfile import TensorFile

_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}


def open_folder(path: Path, tensors: TensorFile) -> tuple[PiecedTensors, Family]:
    """The folder's tensors under LDM/SGM keys, and the family that its configurations describe.

    Raises `UserError` when a configuration is missing or of an unknown form, or does not fit the weights.
    """
    family = read_family(path)
    shapes = tensors.shapes()
    pieces: dict[str, Piece] = {}
    for part, rows in part_rows(family).items():
        if not any(name.startswith(f"{part}/") for name in shapes):
            continue
        pieces |= pieces_of(f"{part}/", rows, tensors, path)
    placed = {name for piece in pieces.values() for name in piece.names}
    strangers = [name for name in shapes if name not in placed and name.startswith((f"{UNET}/", f"{VAE}/"))]
    if strangers:
        raise UserError(f"the tensor {strangers[0]} does not fit its config.json", where=str(path))
    return PiecedTensors(tensors, pieces), family


def read_family(path: Path) -> Family:
    """The family from the folder's config.json files. Raises `UserError` naming the file for what is not supported."""
    unet_file = path / UNET / "config.json"
    described = textfiles.read_mapping(unet_file)
    texts = [path / part / "config.json" for part in TEXT_ENCODERS]
    unet = _unet(described, unet_file)
    name = _name(unet, texts)
    known = PUBLISHED[name]
    text = tuple(
        _text(config, file) if file.is_file() else config for config, file in zip(known.text, texts, strict=False)
    )
    family = replace(known, unet=unet, text=text)
    if (path / VAE / "config.json").is_file():
        vae = textfiles.read_mapping(path / VAE / "config.json")
        scale = vae.get("scaling_factor", known.scale_factor)  # absent in folders before diffusers 0.12
        family = replace(family, vae=_vae(vae, path / VAE / "config.json"), scale_factor=float(scale))
    if isinstance(described.get("sample_size"), int):
        family = replace(family, resolution=described["sample_size"] * family.vae.downscale)
    return _with_scheduler(family, path / "scheduler" / "scheduler_config.json")


def _name(unet: UNetConfig, texts: list[Path]) -> str:
    if unet.adm_in_channels is not None:
        return SDXL
    first = textfiles.read_mapping(texts[0]) if texts[0].is_file() else {}
    return SD2 if first.get("hidden_act") == "gelu" or unet.linear_projection else SD1


def _unet(data: Mapping[str, Any], path: Path) -> UNetConfig:
    problems = Problems()
    downs, channels = data.get("down_block_types"), data.get("block_out_channels")
    if not isinstance(channels, list) or not isinstance(downs, list) or any(kind not in _DOWN for kind in downs):
        raise UserError(f"its blocks are of no known form: {downs}", where=str(path))
    if any(width % channels[0] for width in channels):
        problems.add(f"the widths {channels} are no multiples of the first", where=str(path))
    if data.get("class_embed_type") or data.get("num_class_embeds"):
        problems.add("it is conditioned on classes", where=str(path), fix="only SD1, SD2 and SDXL are supported")
    problems.raise_if_any()
    levels = len(channels)
    depths = _each(data.get("transformer_layers_per_block", 1), levels)
    text_time = data.get("addition_embed_type") == "text_time"
    return UNetConfig(
        in_channels=data.get("in_channels", 4), out_channels=data.get("out_channels", 4), model_channels=channels[0],
        channel_mult=tuple(width // channels[0] for width in channels),
        num_res_blocks=_each(data.get("layers_per_block", 2), levels),
        transformer_depth=tuple(depth if _DOWN[kind] else 0 for depth, kind in zip(depths, downs, strict=True)),
        middle_depth=depths[-1], context_dim=data.get("cross_attention_dim", 0),
        heads=_each(data.get("num_attention_heads") or data.get("attention_head_dim", 8), levels),
        linear_projection=bool(data.get("use_linear_projection")),
        adm_in_channels=data.get("projection_class_embeddings_input_dim") if text_time else None,
    )


def _each(value: Any, levels: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (value,) * levels


def _vae(data: Mapping[str, Any], path: Path) -> VAEConfig:
    channels = data.get("block_out_channels")
    if not isinstance(channels, list) or data.get("latents_mean") or data.get("use_quant_conv") is False:
        raise UserError("this autoencoder is of no known form", where=str(path))
    return VAEConfig(
        ch=channels[0], ch_mult=tuple(width // channels[0] for width in channels),
        num_res_blocks=data.get("layers_per_block", 1), z_channels=data.get("latent_channels", 4),
        in_channels=data.get("in_channels", 3), out_channels=data.get("out_channels", 3),
    )


def _text(known: TextConfig, path: Path) -> TextConfig:
    data = textfiles.read_mapping(path)
    layers = data.get("num_hidden_layers", known.layers)
    ends_early = known.final_norm and not known.skippable  # SD2's folders end at the layer that is used
    return replace(
        known, width=data.get("hidden_size", known.width), layers=layers,
        intermediate=data.get("intermediate_size", known.intermediate),
        vocab_size=data.get("vocab_size", known.vocab_size),
        positions=data.get("max_position_embeddings", known.positions),
        activation=data.get("hidden_act", known.activation),
        projection=data.get("projection_dim", known.projection) if known.projection else None,
        hidden_index=-1 if ends_early else _penultimate(known, layers),
    )


def _penultimate(known: TextConfig, layers: int) -> int:
    return known.hidden_index if known.hidden_index < 0 else min(known.hidden_index, layers - 1)


def _with_scheduler(family: Family, path: Path) -> Family:
    if not path.is_file():
        return replace(family, prediction_guessed=family.name == SD2)
    data = textfiles.read_mapping(path)
    prediction = data.get("prediction_type", EPSILON)
    if prediction not in (EPSILON, V_PREDICTION) or data.get("beta_schedule", "scaled_linear") != "scaled_linear":
        raise UserError(f"prediction_type {prediction} with these betas is not supported", where=str(path))
    known = family.schedule
    schedule = NoiseSchedule(
        int(data.get("num_train_timesteps", known.timesteps)), float(data.get("beta_start", known.linear_start)),
        float(data.get("beta_end", known.linear_end)), bool(data.get("rescale_betas_zero_snr", False)),
    )
    return replace(family.with_prediction_type(prediction), schedule=schedule)
