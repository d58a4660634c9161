"""The settings of a conversion (`convert`), declared once. See `fields.py` for what derives from this."""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.settings.fields import BASIC, setting

DTYPES = ("fp16", "bf16", "fp32", "fp8_e4m3", "fp8_e5m2")
KEEP, DROP, USE = "keep", "drop", "use"


@dataclass(frozen=True)
class ConvertSettings:
    """What to convert, and into what."""

    file: str | None = setting(
        None, "File", "The checkpoint: .safetensors, .ckpt, or a diffusers folder.", level=BASIC, kind="checkpoint",
        default_text="needed",
    )
    out: str | None = setting(
        None, "Result", "A name ending in .safetensors is a single file, any other a diffusers folder.", level=BASIC,
        kind="file", default_text="needed",
    )
    dtype: str | None = setting(
        None, "Precision of the file", "Number format of the weights; without it each tensor keeps its own.",
        level=BASIC, choices=DTYPES, default_text="as stored",
    )
    ema: str = setting(
        KEEP, "EMA weights", "keep them, drop them, or use them: they take the place of the UNet.", level=BASIC,
        choices=(DROP, KEEP, USE),
    )
    no_vae: bool = setting(False, "Without VAE", "Leave the VAE out.")
    no_text_encoder: bool = setting(False, "Without text encoder", "Leave the text encoders out.")
    vae: str | None = setting(None, "VAE", "A VAE file to put in the place of the checkpoint's own.", kind="vae")
