"""Settings of a training run: pictures and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.fields import BASIC, setting


@dataclass(frozen=True)
class Concept:
    """One thing to learn: pictures, words, and (for prior preservation) its class."""

    name: str = setting("subject", "Name", "Names the concept in the plan and the file.")
    instance_dir: str = setting(
        "",
        "Pictures",
        "Folder with pictures of the subject; 5 to 20 are enough. Sub-folders are read too.",
        level=BASIC,
        kind="folder",
    )
    instance_prompt: str = setting(
        "",
        "Prompt",
        "What the pictures show, with the word that will call the subject: a photo of sks dog. A caption file "
        "(.txt) beside a picture wins; [filewords] is replaced by the caption.",
        level=BASIC,
        kind="text",
    )
    class_dir: str = setting(
        "",
        "Class pictures",
        "Folder of ordinary pictures of the class. Missing ones are made first by the starting model "
        "and kept for the next run.",
        kind="folder",
        default_text="kept with the outputs, one folder a model and prompt",
    )
    class_prompt: str = setting(
        "",
        "Class prompt",
        "The same words without the subject's: a photo of a dog. Given, the class is kept (prior preservation).",
        level=BASIC,
        kind="text",
    )
    num_class_images: int = setting(
        100,
        "Class pictures wanted",
        "How many class pictures to use; made when there are fewer.",
        minimum=1,
        step=1,
        unit="pictures",
        level=BASIC,
    )
    weight: float = setting(
        1.0,
        "Weight",
        "Share of this concept among all, whatever its number of pictures.",
        minimum=0.0,
        exclusive_minimum=True,
    )
    weighting: str = setting(
        "none",
        "Weights of folders",
        "How pictures of this subject count. none: all the same. kohya: folders named 10_name count 10 times, name is "
        "the caption of pictures without one. everydream: multiply.txt and its side files; everydream1: cut to whole "
        "numbers. tree: shares by group_weights or group_weights_file.",
        choices=("none", "kohya", "everydream", "everydream1", "tree"),
    )
    group_weights: dict[str, Any] = setting(
        {},
        "Weights of groups",
        "tree: weights among neighbouring folders, nested as these are: {a: 3, b: {weight: 1, sub: 2}}. Folders that "
        "are not named weigh 1.",
        default_text="{}",
    )
    group_weights_file: str = setting(
        "",
        "File of group weights",
        "tree: a csv of folder name or pattern and weight, as anime_screenshot_pipeline has it.",
        kind="file",
    )
    picture_weights: str = setting(
        "",
        "File of picture weights",
        "A JSON file of weights of single pictures, {folder/picture.png: 2.0}; those that are not named weigh 1.",
        kind="file",
    )


@dataclass(frozen=True)
class DataSettings:
    """Pictures and captions."""

    concepts: tuple[Concept, ...] = setting((), "Concepts", "What to learn, one entry a subject.", level=BASIC)
    resolution: str = setting(
        "512",
        "Resolution",
        "Size of the training pictures: 512, or WIDTHxHEIGHT in multiples of 8. With buckets, their pixel budget.",
        unit="pixels",
        level=BASIC,
        default_text="512 (SDXL 1024, toybox 128)",
    )
    bucketing: str = setting(
        "none",
        "Buckets",
        "Train every picture near its own shape. none: all at the resolution. least_waste: our own, cuts away least. "
        "naifu, kohya, everydream: these programs' sizes. sdxl: bigASP's 26, of about 1024x1024 pixels.",
        choices=("none", "least_waste", "naifu", "kohya", "everydream", "sdxl"),
    )
    arb: dict[str, Any] = setting(
        {},
        "ARB block",
        "naifu's arb block as it stands in its config: base_res, max_size, divisible, max_ar_error, min_dim, "
        "dim_limit. Given, and not enabled: false, it turns naifu's buckets on.",
        default_text="naifu's own for the resolution",
    )
    min_bucket_reso: int | None = setting(
        None,
        "Shortest bucket side",
        "kohya, least_waste: no side of a bucket is shorter.",
        minimum=64,
        maximum=8192,
        unit="pixels",
        default_text="256, or half of a small resolution",
    )
    max_bucket_reso: int | None = setting(
        None,
        "Longest bucket side",
        "kohya, least_waste: no side of a bucket is longer.",
        minimum=64,
        maximum=8192,
        unit="pixels",
        default_text="twice the resolution",
    )
    bucket_reso_steps: int = setting(
        64,
        "Bucket steps",
        "kohya, least_waste: sides of buckets are multiples of this.",
        minimum=8,
        maximum=512,
        step=8,
        unit="pixels",
    )
    bucket_no_upscale: bool = setting(
        False,
        "Do not enlarge",
        "kohya: pictures smaller than the resolution keep their size, cut to the step; a bucket for each such size.",
    )
    too_small: str = setting(
        "auto",
        "Pictures that are too small",
        "enlarge them, or leave_out those with fewer pixels than their bucket. auto: as the buckets' program does, "
        "which is leave_out for sdxl.",
        choices=("auto", "enlarge", "leave_out"),
    )
    resize: str = setting(
        "cover",
        "Resize",
        "cover: fill the size and crop the rest. pad: keep the whole picture on a coloured ground.",
        choices=("cover", "pad"),
    )
    pad_color: str = setting("white", "Pad colour", "Ground for pad, and for transparent pictures.", kind="color")
    random_crop: bool = setting(False, "Random crop", "Crop at random instead of the middle; needs cache_latents none.")
    flip_p: float = setting(
        0.0, "Flip", "Chance to mirror a picture left to right.", minimum=0.0, maximum=1.0, step=0.05
    )
    caption_dropout_rate: float = setting(
        0.0,
        "Caption dropout",
        "Chance to train a picture with an empty caption, which strengthens CFG.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    shuffle_caption: bool = setting(False, "Shuffle caption", "Shuffle the comma-separated tags of each caption.")
    keep_tokens: int = setting(
        0, "Keep tokens", "Leave the first tags in place when shuffling or dropping.", minimum=0, step=1
    )
    tag_dropout_rate: float = setting(
        0.0,
        "Tag dropout",
        "Chance to leave out each tag of a caption.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    cache_latents: str = setting(
        "memory",
        "Cache latents",
        "Encode each picture once and keep the result. disk also serves the next run.",
        choices=("memory", "disk", "none"),
    )
    cache_dir: str = setting(
        "",
        "Cache folder",
        "Where cache_latents disk keeps its files.",
        kind="folder",
        default_text="beside the outputs",
    )
