"""A live merge in the WebUI: the loaded model's weights, its name and hash, and what was computed from them.

What is on is read from the model itself, so it is true whatever the WebUI has done meanwhile: loading weights into
the model gives it another checkpoint entry than the one that a live merge leaves there.
"""
from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from modules import devices, processing, script_callbacks, sd_models, sd_unet, sd_vae, shared

from lib_sdtrain.errors import UserError
from lib_sdtrain.host.live_weights import Find, LiveWeights, Loading, changes_text
from lib_sdtrain.host.protocol import LiveMerge, LiveTensors
from lib_sdtrain.model.checkpoint import open_checkpoint

RECORD = "sdtrain_live"
WANTED = "sdtrain_live_wanted"
HASH_LENGTH = 10


@dataclass
class _Record:
    """Kept on the model: what it shows, and how it was. `info` is the checkpoint entry it has meanwhile."""

    merge: LiveMerge
    own_info: Any
    own_hash: str
    empty_prompt: Any
    info: Any = None
    weights: LiveWeights = field(default_factory=LiveWeights)


def _model() -> Any:
    with sd_models.model_data.lock:  # a model that is being loaded at start is waited for
        return sd_models.model_data.sd_model


def _record(model: Any) -> _Record | None:
    """The record of a model that still shows its live merge."""
    record = getattr(model, RECORD, None)
    on = record is not None and model.sd_checkpoint_info is record.info
    return record if on and model.sd_model_hash == _short(record.merge) else None


def _short(merge: LiveMerge) -> str | None:
    return merge.digest[:HASH_LENGTH] or None


def shown() -> LiveMerge | None:
    """What the loaded model shows, a merge or the weights of a training."""
    record = _record(sd_models.model_data.sd_model)
    return record.merge if record else None


def live() -> LiveMerge | None:
    """The merge that the loaded model shows."""
    merge = shown()
    return merge if merge is not None and merge.recipe else None


def apply(
    merge: LiveMerge, tensors: LiveTensors, keys: Sequence[str] | None, tell: Callable[[int, int], None]
) -> None:
    """See `LiveHost.apply_live`."""
    model = _model()
    _check(model, merge)
    if keys is None:
        revert()
        keys = tensors.keys()
    record = _record(model) or _Record(
        merge, model.sd_checkpoint_info, model.sd_model_hash, getattr(model, "cond_stage_model_empty_prompt", None)
    )
    with _file_of(record) as original:
        try:
            record.weights.put(model, keys, tensors.tensor, original, _loading(model), tell)
        except BaseException:
            _put_back(model, record, original)
            raise
    if changes_text(keys):
        _forget_conditioning(model)
        _encode_nothing(model)
    record.merge = merge
    record.info = _renamed(record.own_info, merge)
    setattr(model, RECORD, record)
    _call(model, record.info, _short(merge), merge.digest or None)
    setattr(shared, WANTED, merge)
    script_callbacks.model_loaded_callback(model)


def revert() -> bool:
    """See `LiveHost.revert_live`."""
    setattr(shared, WANTED, None)
    model = _model()
    record = _record(model)
    if record is None:
        return False
    with _file_of(record) as original:
        _put_back(model, record, original)
    script_callbacks.model_loaded_callback(model)
    return True


def _put_back(model: Any, record: _Record, original: Find) -> None:
    text = changes_text(record.weights.touched)
    record.weights.put_back(model, original, _loading(model))
    if text:
        _forget_conditioning(model)
        if record.empty_prompt is not None:
            model.cond_stage_model_empty_prompt = record.empty_prompt
    if record.info is not None:
        delattr(model, RECORD)
        _call(model, record.own_info, record.own_hash, record.own_info.sha256)
    setattr(shared, WANTED, None)


def _check(model: Any, merge: LiveMerge) -> None:
    if model is None:
        raise UserError("the WebUI has no model loaded", where="a", fix="choose a checkpoint at the top of the page")
    loaded = Path(model.sd_checkpoint_info.filename)
    if loaded != merge.checkpoint:
        fix = f"load {merge.checkpoint.name} at the top of the page, or choose {loaded.name} here"
        raise UserError(f"{merge.checkpoint.name} is not the loaded checkpoint", where="a", fix=fix)
    other = sd_unet.current_unet
    if other is not None:
        raise UserError(
            f"the WebUI draws with another U-Net ({other.option.label}), which cannot be merged live", where="live",
            fix="choose None for SD Unet in the WebUI's settings",
        )


def _loading(model: Any) -> Loading:
    aside = (sd_vae.get_base_vae(model) or {}) if sd_vae.loaded_vae_file else None
    return Loading(half_first=bool(devices.fp8), cleanse=_without_lora, vae_aside=aside)


def _without_lora(module: torch.nn.Module) -> None:
    """The weights that the WebUI's LoRA extension has put aside, if it has."""
    networks = sys.modules.get("networks")
    restore = getattr(networks, "network_restore_weights_from_backup", None)
    if restore is not None:
        restore(module)


@contextmanager
def _file_of(record: _Record) -> Iterator[Find]:
    """Gives tensors of the checkpoint's file by their LDM/SGM name, None for those that it lacks."""
    checkpoint = open_checkpoint(record.own_info.filename)
    with checkpoint.tensors:
        yield lambda key: checkpoint.tensor(key) if key in checkpoint.file_keys else None


def _renamed(info: Any, merge: LiveMerge) -> Any:
    """The model's checkpoint entry with the merge's name and hash; its title and file stay, so nothing is reloaded."""
    made = copy.copy(info)
    made.name_for_extra = merge.name
    made.sha256, made.shorthash = merge.digest or None, _short(merge)
    return made


def _call(model: Any, info: Any, short: str | None, digest: str | None) -> None:
    """What the WebUI says of the model from now on: in infotexts, and at the foot of the page."""
    if sd_vae.checkpoint_info is model.sd_checkpoint_info:
        # The VAE that it keeps aside is still this model's. Without one it may think, after it has switched between
        # models in memory, that it has one, and would not keep the model's own when another VAE comes.
        sd_vae.checkpoint_info = info if sd_vae.base_vae is not None else None
    model.sd_checkpoint_info = info
    model.sd_model_hash = short
    shared.opts.data["sd_checkpoint_hash"] = digest


def _forget_conditioning(model: Any) -> None:
    """What the text encoder made of prompts before."""
    del model
    first, second = processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img
    first.cached_c, first.cached_uc = [None, None], [None, None]
    second.cached_hr_c, second.cached_hr_uc = [None, None], [None, None]


def _encode_nothing(model: Any) -> None:
    """The empty prompt, which pads shorter ones, encoded as loading the model does."""
    if hasattr(model, "cond_stage_model_empty_prompt"):
        with devices.autocast(), torch.no_grad():
            model.cond_stage_model_empty_prompt = sd_models.get_empty_cond(model)


def loaded(model: Any) -> None:
    """`on_model_loaded`: when weights came from a file, what was merged into them is gone, and so is its record."""
    record = getattr(model, RECORD, None)
    if record is not None and _record(model) is None:
        delattr(model, RECORD)
        if model.sd_checkpoint_info is record.info:  # loading another checkpoint failed, and the WebUI went back
            model.sd_checkpoint_info = record.own_info
            record.own_info.register()
    if not shared.state.job and shown() is None:
        setattr(shared, WANTED, None)  # a person has chosen; a refiner or a script comes back by itself


def again() -> bool:
    """Show the merge again that the WebUI has lost on its own way (a refiner, a script's checkpoint).

    For whoever holds the queue lock and has just had the model loaded. True when something was done.
    """
    wanted: LiveMerge | None = getattr(shared, WANTED, None)
    model = sd_models.model_data.sd_model
    if wanted is None or model is None or shown() is not None:
        return False
    if Path(model.sd_checkpoint_info.filename) != wanted.checkpoint:
        return False
    with wanted.opened() as tensors:
        apply(wanted, tensors, None, lambda done, total: None)
    return True
