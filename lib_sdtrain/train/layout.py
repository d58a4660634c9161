"""What a written checkpoint holds: which of its parent's tensors, in which number format, and what is added."""
from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.family import V_MARKER, V_PREDICTION, Family
from lib_sdtrain.model.header import Spec
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, ema_key, part_rows
from lib_sdtrain.model.parts import EMA, EMA_COUNTERS, TEXT_ENCODER, part_of
from lib_sdtrain.model.selection import is_weight
from lib_sdtrain.model.writer import specs_of
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_outputs import DROP, KEEP
from lib_sdtrain.train.families import markers


def keeps_average(settings: RunSettings) -> bool:
    """Whether the file carries the UNet's average beside its weights."""
    return settings.ema.decay is not None and settings.save.ema == KEEP


def child_specs(checkpoint: Checkpoint, settings: RunSettings, trained: Family) -> dict[str, Spec]:
    """(number format, shape) of every tensor of the child, by its name in the file."""
    specs = {}
    for key, name in _kept(checkpoint, settings):
        if key == V_MARKER and trained.prediction_type != V_PREDICTION:
            continue  # it says so of its parent
        stored = checkpoint.tensors.dtype(name)
        specs[name] = _format(key, stored, settings), checkpoint.tensors.shape(name)
    if keeps_average(settings):
        wide = SHORT_NAMES.get(settings.save.dtype, torch.float32)
        for row in part_rows(checkpoint.family)[UNET]:
            specs[ema_key(row.key)] = wide, checkpoint.shape(row.key)
        decay, updates = EMA_COUNTERS
        specs |= {decay: (torch.float32, ()), updates: (torch.int32, ())}
    return specs | specs_of(markers(trained, checkpoint))


def expected_tensors(checkpoint: Checkpoint, settings: RunSettings) -> dict[str, tuple[int, ...]]:
    """Name in the file -> shape of everything that the WebUI loads: the family's own tables of the parts that the
    child is to have, whatever was found in its parent."""
    wanted = {UNET: True, VAE: settings.save.vae, **dict.fromkeys(TEXT_ENCODERS, settings.save.text_encoder)}
    there = checkpoint.parts
    found = {}
    for part, rows in part_rows(checkpoint.family).items():
        if wanted[part] and there[TEXT_ENCODER if part in TEXT_ENCODERS else part]:
            found |= {checkpoint.file_keys[row.key]: checkpoint.shape(row.key) for row in rows}
    return found


def _kept(checkpoint: Checkpoint, settings: RunSettings) -> Iterator[tuple[str, str]]:
    """LDM key and name in the file of the parent's tensors that the child has too."""
    dropped = set() if settings.save.vae else {VAE}
    if not settings.save.text_encoder:
        dropped.add(TEXT_ENCODER)
    if settings.ema.decay is not None or settings.save.ema == DROP:
        dropped.add(EMA)  # it is of the parent's weights, no longer of these
    keys = {name: key for key, name in checkpoint.file_keys.items()}
    for name in checkpoint.tensors.keys():  # noqa: SIM118 - not a dict
        key = keys.get(name, name)
        if part_of(key) not in dropped:
            yield key, name


def _format(key: str, stored: torch.dtype, settings: RunSettings) -> torch.dtype:
    return SHORT_NAMES.get(settings.save.dtype, stored) if is_weight(key, stored) else stored


def size_of(specs: dict[str, Spec]) -> int:
    """Bytes of all tensors."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs.values())
