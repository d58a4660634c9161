"""Mistakes in the settings of pictures and captions that can be told before anything is read."""
from __future__ import annotations

from PIL import ImageColor

from lib_sdtrain.data.sizes import parse_resolution, sizing_of
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.run import DataSettings


def check_data(data: DataSettings, problems: Problems) -> None:
    """Add every contradiction to `problems`; a resolution that is no size is left to the plan."""
    try:
        ImageColor.getrgb(data.pad_color)
    except ValueError:
        problems.add(f"{data.pad_color!r} is not a colour", where="data.pad_color", fix="write white, or #ff8800")
    if data.random_crop and data.cache_latents != "none":
        problems.add(
            "random crops cannot be cached", where="data.random_crop",
            fix="set data.cache_latents to none, or crop the middle",
        )
    try:
        parse_resolution(data.resolution)
    except UserError:
        return
    try:
        sizing_of(data)
    except UserError as error:
        problems.absorb(error)
