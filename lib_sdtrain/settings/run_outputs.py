"""The settings of what a run leaves behind: `preview` and `save`."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.fields import BASIC, setting
from lib_sdtrain.settings.lengths import Length


@dataclass(frozen=True)
class PreviewSettings:
    """Pictures drawn while training."""

    prompts: tuple[Any, ...] = setting(
        (),
        "Previews",
        "Plain prompts, WebUI infotexts, or requests as the WebUI's API takes them.",
        kind="requests",
        level=BASIC,
    )
    every: Length | None = setting(
        None,
        "Preview every",
        "How often to draw them; step 0 and the end always.",
        minimum=0,
        exclusive_minimum=True,
        level=BASIC,
    )


@dataclass(frozen=True)
class SaveSettings:
    """What is written, where and when."""

    name: str = setting(
        "", "Name", "File name of the result.", kind="text", level=BASIC, default_text="the first concept's name"
    )
    dir: str = setting("", "Folder", "Where checkpoints go.", kind="folder", default_text="the run's checkpoints/")
    every: Length | None = setting(
        None,
        "Save every",
        "Write a checkpoint this often, besides the one at the end.",
        minimum=0,
        exclusive_minimum=True,
    )
    state_every: Length | None = setting(
        Length(500),
        "Save state every",
        "How often to write the state that a killed run goes on from.",
        minimum=0,
        exclusive_minimum=True,
    )
    dtype: str | None = setting(
        None,
        "Number format",
        "Of what is written. Published files are fp16; fp32 to train on from. A LoRA is fp16 unless said otherwise.",
        choices=("fp16", "bf16", "fp32"),
        default_text="as the parent's",
    )
    vae: bool = setting(True, "Save VAE", "Off: the file is smaller, and is used with a VAE of its own.")
    text_encoder: bool = setting(True, "Save text encoder", "Off: only the UNet (and the VAE).")
    ema: str = setting(
        "use",
        "Saved average",
        "With an EMA decay. use: the average is the result. keep: the last weights are, the UNet's average goes with "
        "them (model_ema), to train on from. drop: the last weights alone.",
        choices=("use", "keep", "drop"),
    )
