"""Which part of a model a key of a single-file checkpoint belongs to."""
from __future__ import annotations

from lib_sdtrain.model.keys import UNET, VAE

TEXT_ENCODER, EMA, OTHER = "text_encoder", "ema", "other"
EMA_PREFIX = "model_ema."
EMA_COUNTERS = ("model_ema.decay", "model_ema.num_updates")

_PREFIXES = (
    ("model.diffusion_model.", UNET),
    ("first_stage_model.", VAE),
    ("cond_stage_model.", TEXT_ENCODER),
    ("conditioner.", TEXT_ENCODER),
    (EMA_PREFIX, EMA),
)


def part_of(key: str) -> str:
    """`unet`, `vae`, `text_encoder` (all of them), `ema`, or `other` (schedule buffers, markers)."""
    return next((part for prefix, part in _PREFIXES if key.startswith(prefix)), OTHER)
