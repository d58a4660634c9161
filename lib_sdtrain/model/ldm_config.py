"""What the side-by-side LDM or SGM `.yaml` of a checkpoint adds to its shapes, read as the WebUI reads it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.errors import UserError
from lib_sdtrain.model.family import EPSILON, V_PREDICTION, Family, NoiseSchedule

LDM_NAMES = {"eps": EPSILON, "v": V_PREDICTION}


def config_beside(checkpoint: Path) -> Path | None:
    """The `.yaml` of the checkpoint's own name, None without one."""
    path = checkpoint.with_suffix(".yaml")
    return path if path.is_file() and checkpoint.is_file() else None


def apply_config(family: Family, path: Path) -> Family:
    """The family as the file at `path` describes it: heads, prediction type, scale factor, noise schedule.

    Raises `UserError` when it is no such description, or of another architecture than the weights.
    """
    params = _at(textfiles.read_mapping(path), "model", "params")
    if not params:
        raise UserError("no model description (model.params is missing)", where=str(path))
    unet = _at(params, "unet_config", "params") or _at(params, "network_config", "params")
    _check_same(family, unet, path)
    found = replace(family, unet=replace(family.unet, heads=_heads(family, unet)))
    if "scale_factor" in params:
        found = replace(found, scale_factor=float(params["scale_factor"]))
    prediction = LDM_NAMES.get(str(params.get("parameterization", "")))
    if prediction or "linear_start" in params:
        found = replace(found, prediction_type=prediction or EPSILON, prediction_guessed=False)
    schedule = NoiseSchedule(
        int(params.get("timesteps", family.schedule.timesteps)),
        float(params.get("linear_start", family.schedule.linear_start)),
        float(params.get("linear_end", family.schedule.linear_end)),
        family.schedule.zero_terminal_snr,
    )
    return replace(found, schedule=schedule)


def _at(data: Any, *names: str) -> Any:
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data or {}


def _check_same(family: Family, unet: Mapping[str, Any], path: Path) -> None:
    for name in ("model_channels", "in_channels", "context_dim"):
        described, held = unet.get(name), getattr(family.unet, name)
        if described is not None and described != held:
            raise UserError(
                f"it describes {name} {described}, the weights have {held}", where=str(path),
                fix="put the .yaml beside the checkpoint that it belongs to, or remove it",
            )


def _heads(family: Family, unet: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Attention heads a level: `num_heads` of them, or as many of `num_head_channels` as fit."""
    per_head = unet.get("num_head_channels", -1)
    if isinstance(per_head, int) and per_head > 0:
        return tuple(channels // per_head for channels in family.unet.channels)
    count = unet.get("num_heads", -1)
    if isinstance(count, int) and count > 0:
        return (count,) * len(family.unet.channels)
    return family.unet.heads
