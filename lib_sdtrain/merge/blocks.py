"""Which block of the U-Net every key of a checkpoint belongs to, under four published conventions.

A block weight is one number a block: 26 for SD1 and SD2 (BASE, IN00-IN11, M00, OUT00-OUT11), 20 for SDXL
(BASE, IN00-IN08, M00, OUT00-OUT08). All mergers agree about `input_blocks`, `middle_block` and
`output_blocks`; they disagree about the rest, so that the same 26 numbers give three or four different
models. `CONVENTIONS` holds each merger's table as data; a recipe names the one it was made with.

Inpainting and instruct-pix2pix models have the same keys, only wider; SD2 has the keys of SD1 with
another text encoder.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

BASE = "BASE"
KEEP = "A"
"""Instead of a block: the key is never merged and stays as it is in model A."""


@dataclass(frozen=True)
class Layout:
    """The blocks of one architecture: `depth` input blocks, a middle block, `depth` output blocks."""

    depth: int

    @cached_property
    def names(self) -> tuple[str, ...]:
        """BASE, IN00.., M00, OUT00.., in the order in which weights are written."""
        numbers = range(self.depth)
        return (BASE, *(f"IN{n:02d}" for n in numbers), "M00", *(f"OUT{n:02d}" for n in numbers))

    @property
    def last_out(self) -> str:
        """The last output block: OUT11 or OUT08."""
        return f"OUT{self.depth - 1:02d}"


SD = Layout(12)
SDXL = Layout(9)
LAYOUTS = {"sd1": SD, "sd2": SD, "sdxl": SDXL}
"""Layout by family name."""

_UNET = r"model\.diffusion_model\."
_SCHEDULE = (
    r"(betas|alphas_cumprod|alphas_cumprod_prev|sqrt_(one_minus_)?alphas_cumprod|log_one_minus_alphas_cumprod|"
    r"sqrt_recip(m1)?_alphas_cumprod|posterior_\w+|lvlb_weights|logvar|scale_factor|ddim_\w+|"
    r"denoiser\.(sigmas|log_sigmas))$"
)
KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("position_ids", r".*\bposition_ids$"),
        ("attention_mask", r".*\battn_mask$"),
        ("ema_counter", r"model_ema\.(decay|num_updates)$"),
        ("ema_time_embed", r"model_ema\.diffusion_model\.?time_embed"),
        ("ema", r"model_ema\."),
        ("input", _UNET + r"input_blocks\.(\d+)\."),
        ("middle", _UNET + r"middle_block\."),
        ("output", _UNET + r"output_blocks\.(\d+)\."),
        ("time_embed", _UNET + r"time_embed\."),
        ("label_emb", _UNET + r"label_emb\."),
        ("out", _UNET + r"out\."),
        ("unet_other", _UNET),
        ("vae", r"first_stage_model\."),
        ("text", r"(cond_stage_model|conditioner)\..*(weight|bias)"),
        ("text_bare", r"(cond_stage_model|conditioner)\."),
        ("schedule", _SCHEDULE),
        ("marker", r"(v_pred|ztsnr|edm_vpred\..*|edm_mean|edm_std)$"),
    )
)
"""What a key is, first match wins. `text_bare` are OpenCLIP's positional_embedding, text_projection and
logit_scale, whose names have neither weight nor bias, so that some mergers pass them over."""

NEVER_MERGED = ("position_ids", "attention_mask", "ema_counter", "schedule", "marker")
"""Kinds that stay A's whatever the convention: numbers that only mean something as they are."""


@dataclass(frozen=True)
class Convention:
    """Where one merger puts the kinds of key that are not in a numbered block.

    `sd` and `sdxl` map a kind to IN00, OUT (the last output block), BASE or KEEP; a kind not named is BASE.
    """

    name: str
    help: str
    sd: dict[str, str]
    sdxl: dict[str, str]

    def place(self, kind: str, layout: Layout) -> str:
        """The block (or KEEP) of a key of this kind."""
        if kind in NEVER_MERGED:
            return KEEP
        place = (self.sdxl if layout is SDXL else self.sd).get(kind, BASE)
        return layout.last_out if place == "OUT" else place


_LAST = {"out": "OUT"}
_FIRST = {"out": "OUT", "time_embed": "IN00", "label_emb": "IN00"}
_SKIPS_BARE = {"text_bare": KEEP}
CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            "mbw",
            "Merge Block Weighted: time_embed and label_emb with IN00, out with the last OUT, text encoders and VAE "
            "with BASE.",
            sd=_FIRST,
            sdxl=_FIRST,
        ),
        Convention(
            "supermerger-2023",
            "SuperMerger from July 2023 to October 2025: time_embed with OUT11 on SD1 and SD2, not merged on SDXL; "
            "OpenCLIP's positional_embedding, text_projection and logit_scale not merged.",
            sd={**_LAST, **_SKIPS_BARE, "time_embed": "OUT", "ema_time_embed": "OUT"},
            sdxl={**_LAST, **_SKIPS_BARE, "time_embed": KEEP, "label_emb": KEEP, "ema_time_embed": KEEP},
        ),
        Convention(
            "supermerger",
            "SuperMerger since November 2025: as mbw, but OpenCLIP's positional_embedding, text_projection and "
            "logit_scale are not merged.",
            sd={**_FIRST, **_SKIPS_BARE},
            sdxl={**_FIRST, **_SKIPS_BARE},
        ),
        Convention(
            "sd-mecha",
            "sd-mecha's SuperMerger blocks: time_embed and label_emb with BASE, out with the last OUT.",
            sd=_LAST,
            sdxl=_LAST,
        ),
    )
}


@lru_cache(maxsize=16384)
def kind_of(key: str) -> tuple[str, int]:
    """The kind of a key (see `KINDS`; `unknown` when none matches) and its block number (else -1)."""
    for kind, pattern in KINDS:
        match = pattern.match(key)
        if match:
            number = int(match[1]) if kind in ("input", "output") else -1
            return kind, number
    return "unknown", -1


def block_of(key: str, layout: Layout, convention: str = "mbw") -> str:
    """The block of a key: one of `layout.names`, or KEEP. Keys without a rule are kept."""
    kind, number = kind_of(key)
    if kind == "middle":
        return "M00"
    if kind in ("input", "output"):
        prefix = "IN" if kind == "input" else "OUT"
        return f"{prefix}{number:02d}" if number < layout.depth else BASE
    if kind == "unknown":
        return KEEP
    return CONVENTIONS[convention].place(kind, layout)


def without_rule(keys: Iterable[str], layout: Layout) -> list[str]:
    """Keys that no rule of the table covers: kept from A (or, inside the U-Net, merged with BASE)."""
    lost = []
    for key in keys:
        kind, number = kind_of(key)
        if kind in ("unknown", "unet_other") or number >= layout.depth:
            lost.append(key)
    return lost
