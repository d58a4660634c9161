"""Mistakes in the settings of pictures and captions that can be told before anything is read."""
from __future__ import annotations

from PIL import ImageColor

from lib_sdtrain.data.bigasp import read_aliases
from lib_sdtrain.data.draws import NAI
from lib_sdtrain.data.filters import Filter
from lib_sdtrain.data.sizes import parse_resolution, sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.run import DataSettings


def check_data(data: DataSettings, problems: Problems) -> None:
    """Add every contradiction to `problems`; a resolution that is no size is left to the plan."""
    try:
        ImageColor.getrgb(data.pad_color)
    except ValueError:
        problems.add(f"{data.pad_color!r} is not a colour", where="data.pad_color", fix="write white, or #ff8800")
    if data.random_crop and data.cache_latents != "none" and data.cache_crops is None:
        problems.add(
            "random crops cannot be cached", where="data.random_crop",
            fix="say how many crops of each picture with data.cache_crops, or set data.cache_latents to none",
        )
    if data.refresh_crops and not (data.random_crop and data.cache_crops):
        problems.add(
            "there are no kept crops to refresh", where="data.refresh_crops",
            fix="set data.random_crop and data.cache_crops, or take it out",
        )
    for check in (lambda: data.filter and Filter(data.filter),
                  lambda: data.tag_aliases and read_aliases(data.tag_aliases, "data.tag_aliases")):
        try:
            check()
        except UserError as error:
            problems.absorb(error)
    if not data.caption_separator:
        problems.add("tags need something between them", where="data.caption_separator", fix="a comma is usual")
    if data.caption_generator == NAI and data.caption_tags_min > data.caption_tags_max:
        problems.add(
            f"at least {data.caption_tags_min} tags, and at most {data.caption_tags_max}",
            where="data.caption_tags_min", fix="give it the smaller number",
        )
    for old, new in data.replace_words.items():
        if not old.strip() or not isinstance(new, (str, int, float)):
            problems.add(f"{old!r}: {new!r} is not a word and what it becomes", where="data.replace_words")
    try:
        parse_resolution(data.resolution)
    except UserError:
        return
    try:
        sizing_of(data)
    except UserError as error:
        problems.absorb(error)
