"""Key tables: how a tensor is called in a file (LDM/SGM), in a module (diffusers, transformers) and in a LoRA.

    rows = part_rows(family)["unet"]
    for row in rows: row.key, row.names

`part_rows` gives the tables of every part that is built as a module. Keys that stand in no table (schedule buffers,
position ids, logit scales, moving averages) are data that nobody here interprets: they are carried along.
"""
from __future__ import annotations

from lib_sdtrain.model.family import Family, TextConfig
from lib_sdtrain.model.keys.clip import clip_rows
from lib_sdtrain.model.keys.openclip import openclip_rows
from lib_sdtrain.model.keys.table import Row
from lib_sdtrain.model.keys.unet import ema_key, unet_rows
from lib_sdtrain.model.keys.vae import vae_rows

UNET, VAE = "unet", "vae"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")

__all__ = ["TEXT_ENCODERS", "UNET", "VAE", "Row", "ema_key", "part_rows", "text_rows", "unet_rows", "vae_rows"]


def text_rows(config: TextConfig) -> list[Row]:
    """The table of a text encoder."""
    return openclip_rows(config) if config.layout == "open_clip" else clip_rows(config)


def part_rows(family: Family) -> dict[str, list[Row]]:
    """Part (`unet`, `vae`, `text_encoder`, `text_encoder_2`) -> its table."""
    tables = {UNET: unet_rows(family.unet), VAE: vae_rows(family.vae)}
    for part, config in zip(TEXT_ENCODERS, family.text, strict=False):
        tables[part] = text_rows(config)
    return tables
