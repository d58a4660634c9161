"""Settings of a training run: pictures and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.applies import when
from lib_sdtrain.settings.fields import BASIC, setting
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.run_outputs import SDTRAIN, WEBUI

CLASS_FOLDER, OWN_PICTURES = "folder", "own"
IN_STEPS = (when("data.bucketing", "kohya", "least_waste"),)
AS_WRITTEN = (when("data.caption_generator", "none"),)
"""A generator shuffles, leaves out and spells tags in its own way."""


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
        "(.txt) beside a picture wins; [filewords] is replaced by the caption, [name] by the file name, [folder] by "
        "the folder's, [column:x] by a column of the metadata.",
        level=BASIC,
        kind="text",
    )
    class_from: str = setting(
        CLASS_FOLDER,
        "Class pictures are",
        "folder: ordinary ones from the class folder, made where there are too few. own: the subject's own pictures by "
        "the class prompt, whatever their captions; none are made. The class then looks like the subject.",
        choices=(CLASS_FOLDER, OWN_PICTURES),
        applies=(when("class_prompt"),),
    )
    class_dir: str = setting(
        "",
        "Class pictures",
        "Folder of ordinary pictures of the class. Missing ones are made first by the starting model "
        "and kept for the next run.",
        kind="folder",
        default_text="kept with the outputs, one folder a model and prompt",
        applies=(when("class_prompt"), when("class_from", CLASS_FOLDER)),
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
        applies=(when("class_prompt"), when("class_from", CLASS_FOLDER)),
    )
    weight: float = setting(
        1.0,
        "Weight",
        "Share of this concept among all, whatever its number of pictures.",
        minimum=0.0,
        exclusive_minimum=True,
    )
    metadata_file: str = setting(
        "",
        "Metadata",
        "A file with captions and columns of the pictures: kohya's .json, .jsonl, .csv, .parquet. A caption file "
        "beside a picture wins.",
        kind="file",
    )
    caption_column: str = setting(
        "",
        "Caption column",
        "Which column of the metadata is the caption.",
        kind="text",
        default_text="caption, text or prompt, then tags",
        applies=(when("metadata_file"),),
    )
    filename_captions: bool = setting(
        False,
        "File names as captions",
        "A picture without another caption is called by its file name up to the first underscore (EveryDream).",
    )
    mask_dir: str = setting(
        "",
        "Masks",
        "loss.masked: a folder of masks named as the pictures, white where the picture counts. A NAME-masklabel.png "
        "beside a picture is one too; without either its transparency is.",
        kind="folder",
        applies=(when("loss.masked"),),
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
        applies=(when("weighting", "tree"),),
    )
    group_weights_file: str = setting(
        "",
        "File of group weights",
        "tree: a csv of folder name or pattern and weight, as anime_screenshot_pipeline has it.",
        kind="file",
        applies=(when("weighting", "tree"),),
    )
    picture_weights: str = setting(
        "",
        "File of picture weights",
        "A JSON file of weights of single pictures, {folder/picture.png: 2.0}; those that are not named weigh 1.",
        kind="file",
    )
    weight_column: str = setting(
        "",
        "Column of picture weights",
        "Instead of a file: the column of the metadata that weighs single pictures; those without a value weigh 1.",
        kind="text",
        applies=(when("metadata_file"),),
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
    class_drawn_by: str = setting(
        SDTRAIN,
        "Class pictures drawn by",
        "Who makes missing class pictures. sdtrain: our own sampler. webui: the WebUI's own txt2img, with its scripts "
        "and extensions; only in the WebUI, while the checkpoint that is trained is its loaded one.",
        choices=(SDTRAIN, WEBUI),
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
        applies=IN_STEPS,
    )
    max_bucket_reso: int | None = setting(
        None,
        "Longest bucket side",
        "kohya, least_waste: no side of a bucket is longer.",
        minimum=64,
        maximum=8192,
        unit="pixels",
        default_text="twice the resolution",
        applies=IN_STEPS,
    )
    bucket_reso_steps: int = setting(
        64,
        "Bucket steps",
        "kohya, least_waste: sides of buckets are multiples of this.",
        minimum=8,
        maximum=512,
        step=8,
        unit="pixels",
        applies=IN_STEPS,
    )
    bucket_no_upscale: bool = setting(
        False,
        "Do not enlarge",
        "kohya: pictures smaller than the resolution keep their size, cut to the step; a bucket for each such size.",
        applies=(when("data.bucketing", "kohya"),),
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
    random_crop: bool = setting(
        False, "Random crop", "Crop at random instead of the middle; to cache crops, set cache_crops."
    )
    flip_p: float = setting(
        0.0, "Flip", "Chance to mirror a picture left to right.", minimum=0.0, maximum=1.0, step=0.05
    )
    filter: str = setting(
        "",
        "Filter",
        "Which pictures to use, by their columns: score > 0 and rating != 'e'. Columns come from a concept's "
        "metadata_file; width, height, name, folder and caption are always there. A quoted value is text, as in "
        "name == '0123'. Pictures without a value are left out.",
        kind="text",
    )
    caption_dropout_rate: float = setting(
        0.0,
        "Caption dropout",
        "Chance to train a picture with an empty caption, which strengthens CFG.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    caption_dropout_mode: str = setting(
        "empty",
        "Dropped captions",
        "What stands for a dropped caption: an empty one, a space (EveryDream), or zeroed, no text at all. split: "
        "empty or zeroed by chance (bigASP's code).",
        choices=("empty", "space", "zeroed", "split"),
    )
    shuffle_caption: bool = setting(
        False, "Shuffle caption", "Shuffle the comma-separated tags of each caption.", applies=AS_WRITTEN
    )
    keep_tokens: int = setting(
        0, "Keep tokens", "Leave the first tags in place when shuffling or dropping.", minimum=0, step=1,
        applies=AS_WRITTEN,
    )
    keep_tokens_separator: str = setting(
        "",
        "Keep separator",
        "A mark in captions, ||| for instance: the tags before it stay in place, and those after a second one too.",
        kind="text",
        applies=AS_WRITTEN,
    )
    caption_separator: str = setting(",", "Tag separator", "What stands between tags.", kind="text")
    tag_dropout_rate: float = setting(
        0.0,
        "Tag dropout",
        "Chance to leave out each tag of a caption.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
        applies=AS_WRITTEN,
    )
    enable_wildcard: bool = setting(
        False,
        "Wildcards",
        "Choose one of {this|that} in captions, and one line of captions of several lines, anew for each sample.",
        applies=AS_WRITTEN,
    )
    underscores: str = setting(
        "keep",
        "Underscores",
        "In tags: keep them, write them as spaces, or either at random. Short tags such as ^_^ stay.",
        choices=("keep", "spaces", "random"),
        applies=AS_WRITTEN,
    )
    unescape_brackets: bool = setting(
        False, "Escaped brackets", r"Read \( and \) in captions as plain brackets, as the WebUI's prompts do.",
        applies=AS_WRITTEN,
    )
    replace_words: dict[str, Any] = setting(
        {},
        "Replace words",
        "Whole words of captions and prompts to write otherwise: {Bfan2: Bofa2}.",
        default_text="{}",
    )
    replace_words_from: Length = setting(
        Length(0),
        "Replace words from",
        "When in the run, through all its stages, the words begin to be replaced. Validation says the new ones from "
        "the beginning, so that its curves mean the same throughout.",
        minimum=0,
        applies=(when("data.replace_words"),),
    )
    caption_generator: str = setting(
        "none",
        "Caption generator",
        "A caption of tags is made anew for each sample. bigasp: as bigASP was trained, with some of the tags in "
        "random order and spelling, after tags of the column score. nai: as naifu does, with artists, copyrights, "
        "characters and numbers of people first, then some of the tags in random order. Captions are then shuffled, "
        "thinned out and spelt by it alone; class prompts, and for nai plain prompts, stay as they are.",
        choices=("none", "bigasp", "nai"),
    )
    caption_tags_min: int = setting(
        24, "Fewest tags", "nai: at least so many of a picture's tags are drawn, all where it has fewer.", minimum=0,
        step=1, unit="tags", applies=(when("data.caption_generator", "nai"),),
    )
    caption_tags_max: int = setting(
        72, "Most tags", "nai: at most so many are drawn, beside those that are always kept.", minimum=1, step=1,
        unit="tags", applies=(when("data.caption_generator", "nai"),),
    )
    important_tags: tuple[str, ...] = setting(
        ("watermark",), "Important tags", "bigasp: tags that are never left out.",
        applies=(when("data.caption_generator", "bigasp"),),
    )
    tag_aliases: str = setting(
        "",
        "Tag aliases",
        "bigasp: a JSON or YAML file of other names, {tag: [name, name]}; used at 20 %.",
        kind="file",
        applies=(when("data.caption_generator", "bigasp"),),
    )
    cache_latents: str = setting(
        "memory",
        "Cache latents",
        "Encode each picture once and keep the result. disk also serves the next run, and when all is there the VAE is "
        "not loaded.",
        choices=("memory", "disk", "none"),
    )
    cache_text_embeddings: str = setting(
        "memory",
        "Cache text embeddings",
        "Keep what a text encoder that is not trained says of a caption. disk also serves the next run. Where captions "
        "do not vary, all are encoded first, and the text encoder takes no memory of the GPU while training; without "
        "previews none at all.",
        choices=("memory", "disk", "none"),
    )
    cache_dir: str = setting(
        "",
        "Cache folder",
        "Where cache_latents and cache_text_embeddings disk keep their files.",
        kind="folder",
        default_text="beside the outputs",
        applies=(when("data.cache_latents", "disk") | when("data.cache_text_embeddings", "disk"),),
    )
    latent_precision: str = setting(
        "fp32",
        "Precision of latents",
        "fp16 halves what the cache takes. Latents are rounded the same way whether they are cached or not.",
        choices=("fp32", "fp16"),
    )
    cache_crops: int | None = setting(
        None,
        "Cached crops",
        "random_crop: how many random crops of each picture there are, so that they can be cached.",
        minimum=1,
        maximum=1000,
        step=1,
        default_text="off: a new crop each time, not cached",
        applies=(when("data.random_crop"),),
    )
    refresh_crops: Length | None = setting(
        None,
        "Refresh crops",
        "cache_crops: after how long each picture gets new crops, for instance 10 epochs. They are encoded while "
        "training goes on with the former ones, which the cache then forgets.",
        minimum=1,
        default_text="off: the same crops to the end",
        applies=(when("data.random_crop"), when("data.cache_crops")),
    )
    boxes_column: str = setting(
        "boxes",
        "Boxes column",
        "loss.masked: the column of the metadata with boxes that do not count, watermarks for instance: "
        "[[left, top, right, bottom]] in pixels or fractions.",
        kind="text",
        applies=(when("loss.masked"),),
    )
