"""The side-by-side LDM or SGM `.yaml` of a checkpoint, read as the WebUI reads it.

The weights say what the sizes are; the description adds what no shape tells (attention heads, prediction type,
scale of the latents, which layer of the text encoder counts) and must agree with the rest.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.model.family import EPSILON, V_PREDICTION, Family, NoiseSchedule, TextConfig, UNetConfig, VAEConfig
from lib_sdtrain.places import is_file

LDM_NAMES = {"eps": EPSILON, "v": V_PREDICTION}
SGM_NAMES = {"EpsScaling": EPSILON, "VScaling": V_PREDICTION}
DISCRETIZATION = "LegacyDDPMDiscretization"
# SGM's layer "hidden" comes with its index; SD1's embedder is asked for its layer by clip skip instead.
LAYERS = {"last": -1, "penultimate": -2}


def config_beside(checkpoint: Path) -> Path | None:
    """The `.yaml` of the checkpoint's own name, None without one."""
    path = checkpoint.with_suffix(".yaml")
    return path if is_file(path) and is_file(checkpoint) else None


def apply_config(family: Family, path: Path, has_vae: bool = True) -> Family:
    """The family as the file at `path` describes it; the VAE is only as described where the checkpoint has none.

    Raises `UserError` with everything that is wrong when it is no such description, or describes another
    architecture than that of the weights or one that is not supported.
    """
    params = _at(textfiles.read_mapping(path), "model", "params")
    if not params:
        raise UserError("no model description (model.params is missing)", where=str(path))
    problems = Problems()
    unet = _at(params, "unet_config", "params") or _at(params, "network_config", "params")
    _check_unet(family.unet, unet, path, problems)
    first_stage = _at(params, "first_stage_config", "params")
    if not has_vae:
        family = replace(family, vae=_described_vae(family.vae, _at(first_stage, "ddconfig"), path, problems))
    _check_vae(family, first_stage, path, problems)
    found = replace(
        family, unet=replace(family.unet, heads=_heads(family.unet, unet, path, problems)),
        text=tuple(map(_text, family.text, _embedders(params, family))),
        scale_factor=_number(params, "scale_factor", family.scale_factor, path, problems),
        schedule=_schedule(family.schedule, params, path, problems),
    )
    prediction = _prediction(params, path, problems)
    problems.raise_if_any()
    if prediction:
        found = found.with_prediction_type(prediction)
    # published models write 16, 32 and 64 here without meaning it
    if found.scaled_down and isinstance(params.get("image_size"), int):
        found = replace(found, resolution=params["image_size"] * found.vae.downscale)
    return found


def value_at(data: Any, *names: str) -> Any:
    """What stands there in nested mappings; None where nothing does."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _at(data: Any, *names: str) -> Mapping[str, Any]:
    """The mapping that stands there; an empty one where something else does."""
    found = value_at(data, *names)
    return found if isinstance(found, Mapping) else {}


def _list(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _compare(pairs: Mapping[str, tuple[Any, Any]], path: Path, problems: Problems) -> None:
    for name, (described, held) in pairs.items():
        if described is not None and described != held:
            problems.add(
                f"it describes {name} {described}, the weights have {held}", where=str(path),
                fix="put the .yaml beside the checkpoint that it belongs to, or remove it",
            )


def _check_unet(held: UNetConfig, described: Mapping[str, Any], path: Path, problems: Problems) -> None:
    for name in ("use_scale_shift_norm", "resblock_updown", "disable_self_attentions"):
        if described.get(name):
            problems.add(f"{name} is not supported", where=str(path))
    mult = described.get("channel_mult")
    blocks = described.get("num_res_blocks")
    context = described.get("context_dim")
    _compare({
        "model_channels": (described.get("model_channels"), held.model_channels),
        "in_channels": (described.get("in_channels"), held.in_channels),
        "out_channels": (described.get("out_channels"), held.out_channels),
        "channel_mult": (_list(mult), list(held.channel_mult)),
        "num_res_blocks": (blocks and _each(blocks, held), list(held.num_res_blocks)),
        "context_dim": (context[0] if isinstance(context, list) and context else context, held.context_dim),
        "adm_in_channels": (described.get("adm_in_channels"), held.adm_in_channels),
        "transformer_depth": (_depths(held, described), list(held.transformer_depth)),
    }, path, problems)


def _each(value: Any, held: UNetConfig) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] * len(held.channel_mult)


def _depths(held: UNetConfig, described: Mapping[str, Any]) -> list[Any] | None:
    """Transformer blocks a level: LDM names the downsampling factors that have attention at all."""
    where, depth = described.get("attention_resolutions"), described.get("transformer_depth")
    if not isinstance(where, list) or depth is None or len(_each(depth, held)) != len(held.channel_mult):
        return None
    return [blocks if 2**level in where else 0 for level, blocks in enumerate(_each(depth, held))]


def _check_vae(family: Family, described: Mapping[str, Any], path: Path, problems: Problems) -> None:
    inner = _at(described, "ddconfig")
    if inner.get("attn_resolutions"):
        problems.add("a VAE with attn_resolutions is not supported", where=str(path))
    mult = inner.get("ch_mult")
    _compare({
        "the VAE's ch": (inner.get("ch"), family.vae.ch),
        "the VAE's ch_mult": (_list(mult), list(family.vae.ch_mult)),
        "the VAE's num_res_blocks": (inner.get("num_res_blocks"), family.vae.num_res_blocks),
        "the VAE's z_channels": (inner.get("z_channels"), family.vae.z_channels),
        "the VAE's embed_dim": (described.get("embed_dim"), family.vae.z_channels),
    }, path, problems)


def _described_vae(known: VAEConfig, inner: Mapping[str, Any], path: Path, problems: Problems) -> VAEConfig:
    values = {"ch": known.ch, "num_res_blocks": known.num_res_blocks, "z_channels": known.z_channels}
    values |= {name: inner[name] for name in values if inner.get(name) is not None}
    mult = _list(inner.get("ch_mult")) or list(known.ch_mult)
    numbers = [*values.values(), *mult] if isinstance(mult, list) else [mult]
    if not all(isinstance(number, int) and 0 < number < 2**16 for number in numbers):
        problems.add("the VAE's ddconfig is no list of whole numbers above 0", where=str(path))
        return known
    return replace(known, **values, ch_mult=tuple(mult))


def _heads(held: UNetConfig, described: Mapping[str, Any], path: Path, problems: Problems) -> tuple[int, ...] | None:
    """Attention heads a level: `num_heads` of them, or as many of `num_head_channels` as fit."""
    per_head, count = described.get("num_head_channels", -1), described.get("num_heads", -1)
    if isinstance(per_head, int) and per_head > 0:
        heads = tuple(channels // per_head for channels in held.channels)
    elif isinstance(count, int) and count > 0:
        heads = (count,) * len(held.channels)
    else:
        return held.heads
    for channels, number in zip(held.channels, heads, strict=True):
        if not number or channels % number:
            problems.add(f"{channels} channels cannot be split into {number} attention heads", where=str(path))
    return heads


def _embedders(params: Mapping[str, Any], family: Family) -> Iterator[Mapping[str, Any]]:
    """The description of each of the family's text encoders ({} where there is none)."""
    texts = [one for one in listed_embedders(params) if "CLIP" in str(value_at(one, "target") or "")]
    for index in range(len(family.text)):
        yield _at(texts[index], "params") if index < len(texts) else {}


def listed_embedders(params: Any) -> list[Any]:
    """What a description (its model's `params`) says of embedders: SGM's list, or LDM's one."""
    found = value_at(params, "conditioner_config", "params", "emb_models")
    return found if isinstance(found, list) and found else [_at(params, "cond_stage_config")]


def _text(config: TextConfig, described: Mapping[str, Any]) -> TextConfig:
    """Which layer counts, and the activation of open_clip's `-quickgelu` architectures."""
    if str(described.get("arch", "")).endswith("-quickgelu"):
        config = replace(config, activation="quick_gelu")
    layer = described.get("layer")
    if config.skippable or layer is None:
        return config
    if layer == "hidden" and isinstance(described.get("layer_idx"), int):
        return replace(config, hidden_index=min(described["layer_idx"], config.layers))
    if layer == "penultimate" and config.hidden_index == -1:
        return config  # the last layer, which nothing needs, is not in the file
    return replace(config, hidden_index=LAYERS.get(str(layer), config.hidden_index))


def _number(params: Mapping[str, Any], name: str, known: float, path: Path, problems: Problems) -> float:
    value = params.get(name, known)
    if isinstance(value, (int, float)) and 0 < value < math.inf:
        return value
    problems.add(f"{name} is {value!r}, not a number above 0", where=str(path))
    return known


def _schedule(known: NoiseSchedule, params: Mapping[str, Any], path: Path, problems: Problems) -> NoiseSchedule:
    return replace(
        known, timesteps=int(_number(params, "timesteps", known.timesteps, path, problems)),
        linear_start=float(_number(params, "linear_start", known.linear_start, path, problems)),
        linear_end=float(_number(params, "linear_end", known.linear_end, path, problems)),
    )


def _prediction(params: Mapping[str, Any], path: Path, problems: Problems) -> str | None:
    """The prediction type; LDM means epsilon where it says nothing. None where the file says nothing of diffusion."""
    denoiser = _at(params, "denoiser_config", "params")
    if denoiser:
        scaling = _class(denoiser, "scaling_config") or "EpsScaling"
        discretization = _class(denoiser, "discretization_config") or DISCRETIZATION
        if scaling not in SGM_NAMES or discretization != DISCRETIZATION:
            problems.add(f"{scaling} with {discretization} is not supported", where=str(path))
        return SGM_NAMES.get(scaling)
    if params.get("beta_schedule", "linear") != "linear":
        problems.add(f"beta_schedule {params['beta_schedule']} is not supported", where=str(path))
    if "parameterization" not in params:
        return EPSILON if "unet_config" in params else None
    name = str(params["parameterization"])
    if name not in LDM_NAMES:
        problems.add(f"parameterization {name} is not supported", where=str(path))
    return LDM_NAMES.get(name)


def _class(data: Mapping[str, Any], name: str) -> str:
    return str(value_at(data, name, "target") or "").rpartition(".")[2]
