"""Which tensors a converted checkpoint has, where each comes from, and its number format."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Notice
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.keys import UNET, VAE, ema_key
from lib_sdtrain.model.parts import EMA, EMA_COUNTERS, OTHER, TEXT_ENCODER, part_of
from lib_sdtrain.model.vae_file import VaeFile
from lib_sdtrain.settings.convert import DROP, KEEP, USE, ConvertSettings


@dataclass(frozen=True)
class Pick:
    """One tensor of the result: `key` of `source`, to be stored as `dtype`."""

    source: Checkpoint | VaeFile
    key: str
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.source.shape(self.key)

    def stored(self) -> torch.Tensor:
        """Its values as the source has them."""
        return self.source.tensor(self.key)


def is_weight(key: str, dtype: torch.dtype) -> bool:
    """Whether a change of number format concerns the tensor.

    Token positions are integers; schedule buffers, markers and EMA counters keep their precision.
    """
    return dtype.is_floating_point and part_of(key) != OTHER and key not in EMA_COUNTERS


def select(source: Checkpoint, settings: ConvertSettings, vae: VaeFile | None = None) -> dict[str, Pick]:
    """Key -> `Pick` of the result. Raises `UserError` when EMA weights are to be used and there are none."""
    dropped = {EMA} if settings.ema in (DROP, USE) else set()
    if settings.no_vae or vae is not None:
        dropped.add(VAE)
    if settings.no_text_encoder:
        dropped.add(TEXT_ENCODER)
    origin = _averages(source) if settings.ema == USE else {}
    picks = {}
    for key in source.file_keys:
        if part_of(key) not in dropped:
            name = origin.get(key, key)
            picks[key] = Pick(source, name, _dtype(key, dtype_of(source, name), settings))
    if vae is not None:
        for key in vae.keys():  # noqa: SIM118 - not a dict
            own = dtype_of(source, key) if key in source.file_keys else vae.dtype(key)
            picks[key] = Pick(vae, key, _dtype(key, own, settings))
    return picks


def dtype_of(source: Checkpoint, key: str) -> torch.dtype:
    """Number format of a checkpoint's tensor."""
    return source.tensors.dtype(source.file_keys[key])


def _dtype(key: str, stored: torch.dtype, settings: ConvertSettings) -> torch.dtype:
    return SHORT_NAMES[settings.dtype] if settings.dtype and is_weight(key, stored) else stored


def _averages(source: Checkpoint) -> Mapping[str, str]:
    """UNet key -> key of its moving average. A tensor that was not trained has none and stays."""
    found = {
        key: average
        for key in source.file_keys
        if part_of(key) == UNET and (average := ema_key(key)) in source.file_keys
    }
    if not found:
        raise UserError("the checkpoint holds no EMA weights", where=str(source.path), fix=f"choose {KEEP} or {DROP}")
    return found


def overflow_notice(keys: Sequence[str], out: Path) -> Iterator[Notice]:
    """A warning when tensors held values that the new number format cannot."""
    if keys:
        yield Notice(
            text=f"{len(keys)} tensors hold values too large for this precision, the first is {keys[0]}; "
            "bf16 holds them", where=str(out),
        )  # fmt: skip
