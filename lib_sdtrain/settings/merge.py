"""The settings of a merge (`merge`), declared once. See `fields.py` for what derives from this."""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.settings.fields import BASIC, setting

METHODS = (
    "weighted_sum", "add_difference", "triple_sum", "sum_twice", "smooth_add_difference", "train_difference",
    "multiply_difference", "similarity_add_difference", "extract", "cosine_a", "cosine_b", "tensor_swap",
    "tensor_swap_columns", "slerp", "geometric", "dare", "ties", "model_stock", "self", "self_noise",
    "no_interpolation",
)  # fmt: skip
CONVENTIONS = ("mbw", "supermerger-2023", "supermerger", "sd-mecha")
DTYPES = ("fp16", "bf16", "fp32", "fp8_e4m3", "fp8_e5m2")


@dataclass(frozen=True)
class MergeSettings:
    """What to merge, how, and where to write it. Weights are as long as the family has blocks, BASE first."""

    a: str | None = setting(
        None, "Model A", "The first checkpoint; the result has its tensors.", level=BASIC, kind="checkpoint",
        default_text="needed",
    )
    b: str | None = setting(None, "Model B", "The second checkpoint.", level=BASIC, kind="checkpoint")
    c: str | None = setting(
        None, "Model C", "The third checkpoint, for methods that use three.", level=BASIC, kind="checkpoint"
    )
    model: tuple[str, ...] = setting(
        (), "More models", "Further checkpoints for methods that take any number (ties, dare, model_stock).",
        kind="checkpoint",
    )
    lora: tuple[str, ...] = setting(
        (), "LoRAs", "FILE:WEIGHT or FILE:WEIGHT:BLOCKS; added to the merged weights. BLOCKS are block weights that "
        "multiply WEIGHT: numbers, a preset's name or a preset file.", kind="requests",
    )
    method: str = setting(
        "weighted_sum", "Method", "The formula; `merge --list-methods` explains each.", level=BASIC, choices=METHODS
    )
    alpha: float | None = setting(
        None, "Alpha", "One weight for the whole model: how much of B (or of the difference) goes in.", level=BASIC,
        default_text="0.5",
    )
    beta: float | None = setting(
        None, "Beta", "The second weight, for methods that use two.", default_text="the method's"
    )
    weights_alpha: str | None = setting(
        None, "Block weights", "Alpha for each block, BASE first: 26 numbers for SD1 and SD2, 20 for SDXL, a preset's "
        "name, a preset file, or FILE:NAME. R (0 to 1), U (-0.5 to 1.5) and X (dice_low to dice_high) are diced.",
        level=BASIC, kind="weights",
    )
    weights_beta: str | None = setting(None, "Block weights (beta)", "Beta for each block.", kind="weights")
    elements: str | None = setting(
        None, "Element weights", "BLOCKS:LAYERS:WEIGHT rules, comma-separated; later rules win. BLOCKS: names, ranges "
        "(IN04-IN08) or nothing for all. LAYERS: attention, self-attention, cross-attention, query, key, value, "
        "output, feed-forward, norm, conv, time-embedding, or a part of a tensor's name. NOT turns either round.",
        kind="text",
    )
    blocks: str = setting(
        "mbw", "Block convention", "Whose table tells the block of time_embed, label_emb and other disputed tensors.",
        choices=CONVENTIONS,
    )
    arithmetic: str = setting(
        "fp32", "Arithmetic", "fp32: rounded once. fp16: every operation in the checkpoints' own precision, as the "
        "WebUI's merger and Merge Block Weighted compute, to repeat old merges bit for bit.", choices=("fp32", "fp16"),
    )
    dtype: str | None = setting(
        None, "Precision of the file", "Number format of the weights; without it each tensor keeps A's.",
        choices=DTYPES, default_text="A's",
    )
    ema: str = setting(
        "keep", "EMA weights", "keep: merged like the others, and left out where they would not be those of the "
        "result. drop: left out. use: they take the place of the U-Net.",
        choices=("keep", "drop", "use"),
    )
    vae: str | None = setting(None, "VAE", "A VAE file to put into the result.", kind="vae")
    adjust: str | None = setting(
        None, "Adjust", "SuperMerger's adjustment, up to 8 numbers: detail (IN), detail (OUT), detail (OUT2), "
        "contrast, then brightness and three colours. About -5 to 5.", kind="text",
    )
    discard: str | None = setting(None, "Discard", "A regular expression: tensors it finds are left out.", kind="text")
    gamma: float = setting(1.0, "Gamma", "extract: how sharply common and uncommon parts are told apart.", minimum=0)
    density: float = setting(
        0.2, "Density", "ties: the share of each difference that is kept, largest first.", minimum=0, maximum=1
    )
    drop_rate: float = setting(
        0.5, "Drop rate", "dare: the share of each difference that is dropped at random.", minimum=0, maximum=0.99
    )
    seed: int = setting(0, "Seed", "dare, self_noise: seed of the random draws.", minimum=0)
    dice_seed: int | None = setting(
        None, "Dice seed", "Seed for block weights given as R, U or X; SuperMerger's seed gives SuperMerger's numbers.",
        minimum=0, maximum=4294967295,
    )
    dice_low: str = setting("0", "Dice low", "Lower bound for X: a number, or one for each block.", kind="weights")
    dice_high: str = setting("1", "Dice high", "Upper bound for X: a number, or one for each block.", kind="weights")
    presets: tuple[str, ...] = setting(
        (), "Preset files", "Further files of presets (mbwpresets.txt, preset.tsv) to look names up in.", kind="file"
    )
    recipe: str | None = setting(
        None, "Recipe", "Make a merge again: a recipe file, or a merged checkpoint. Parents are found by hash.",
        kind="file",
    )
    search: tuple[str, ...] = setting((), "Search", "Folders where a recipe's parents are looked for.", kind="folder")
    out: str | None = setting(
        None, "Result", "The file to write (.safetensors).", level=BASIC, kind="file", default_text="needed"
    )
    threads: int | None = setting(None, "Threads", "Threads that compute.", minimum=1, default_text="cores, at most 4")
