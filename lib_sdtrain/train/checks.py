"""Mistakes in a run's settings that can be told before anything is read or made. Collected, not raised one by one."""
from __future__ import annotations

import re

from PIL import ImageColor

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.run import Concept, DataSettings, RunSettings

_SIZE = re.compile(r"\s*(\d+)\s*(?:[xX*]\s*(\d+)\s*)?$")
ADAMW_ARGS = {"betas", "eps", "weight_decay"}
SIDE_LIMITS = (64, 8192)


def parse_resolution(text: str) -> tuple[int, int]:
    """(width, height) from `512` or `768x512`. Raises `UserError`."""
    match = _SIZE.match(text)
    where = "data.resolution"
    if not match:
        raise UserError(f"{text!r} is not a size", where=where, fix="write 512, or 768x512 (width x height)")
    width = int(match[1])
    height = int(match[2] or width)
    for side in (width, height):
        if side % 8 or not SIDE_LIMITS[0] <= side <= SIDE_LIMITS[1]:
            low, high = SIDE_LIMITS
            what = f"{side} is not a multiple of 8 from {low} to {high}"
            raise UserError(what, where=where, fix=f"try {_near(side)}")
    return width, height


def _near(side: int) -> int:
    return min(max(round(side / 64) * 64, SIDE_LIMITS[0]), SIDE_LIMITS[1])


def check_settings(settings: RunSettings, device: str, problems: Problems) -> None:
    """Add every contradiction within the settings, and with the device, to `problems`."""
    if not settings.data.concepts:
        problems.add("nothing to learn is given", where="data.concepts", fix="give at least one with an instance_dir")
    for index, concept in enumerate(settings.data.concepts):
        _check_concept(concept, f"data.concepts.{index}", problems)
    _check_data(settings.data, problems)
    method = settings.method
    if not (method.train_unet or method.train_text_encoder or method.train_text_encoder_2):
        problems.add("nothing is left to train", where="method", fix="set train_unet or train_text_encoder to true")
    _check_optimizer(settings, problems)
    if settings.train.mixed_precision == "fp16" and device != "cuda":
        problems.add(
            f"fp16 training needs a CUDA device, this is {device}", where="train.mixed_precision", fix="use bf16 or no"
        )


def _check_concept(concept: Concept, where: str, problems: Problems) -> None:
    if not concept.instance_dir:
        problems.add("no folder of pictures is given", where=f"{where}.instance_dir")
    if concept.class_dir and not concept.class_prompt:
        problems.add(
            "class pictures are given but no words for them", where=f"{where}.class_prompt",
            fix="write what they show, for instance: a photo of a dog",
        )
    same = concept.class_prompt and concept.class_prompt == concept.instance_prompt
    if same:
        problems.add(
            "the class prompt is the same as the prompt, so the class would become the subject",
            where=f"{where}.class_prompt", fix="leave the subject's own word out of it",
        )


def _check_data(data: DataSettings, problems: Problems) -> None:
    try:
        ImageColor.getrgb(data.pad_color)
    except ValueError:
        problems.add(f"{data.pad_color!r} is not a colour", where="data.pad_color", fix="write white, or #ff8800")
    if data.random_crop and data.cache_latents != "none":
        problems.add(
            "random crops cannot be cached", where="data.random_crop",
            fix="set data.cache_latents to none, or crop the middle",
        )


def _check_optimizer(settings: RunSettings, problems: Problems) -> None:
    for name in sorted(set(settings.train.optimizer_args) - ADAMW_ARGS):
        problems.add(
            "adamw has no such argument", where=f"train.optimizer_args.{name}",
            fix=f"it has {', '.join(sorted(ADAMW_ARGS))}",
        )
    betas = settings.train.optimizer_args.get("betas", (0.9, 0.999))
    if not (isinstance(betas, (list, tuple)) and len(betas) == 2 and all(_fraction(beta) for beta in betas)):
        problems.add(
            f"{betas!r} is not two numbers from 0 to 1", where="train.optimizer_args.betas",
            fix="for instance [0.9, 0.999]",
        )
    for name in ("eps", "weight_decay"):
        value = settings.train.optimizer_args.get(name, 0.0)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            problems.add(f"{value!r} is not a number of at least 0", where=f"train.optimizer_args.{name}")


def _fraction(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
