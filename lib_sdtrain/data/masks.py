"""How much each part of a picture counts in the loss: mask files, transparency, boxes.

A mask file wins over the picture's own transparency; boxes (of watermarks, say) are taken out of either. White counts
fully, black not at all.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from lib_sdtrain.data.concepts import Picture
from lib_sdtrain.data.pictures import BadPicture, Fit, opened, see_through
from lib_sdtrain.errors import UserError
from lib_sdtrain.textfiles import parse_json

if TYPE_CHECKING:
    import torch

    from lib_sdtrain.data.draws import Draw

FULL, NOTHING = 255, 0
Box = tuple[float, float, float, float]


def mask_for(draw: Draw, downscale: int, boxes_column: str = "boxes", elsewhere: float = 0.0) -> torch.Tensor:
    """The weights (1, h, w) of a draw's latents from 0 to 1, resized, cropped and mirrored as the picture is.

    What is masked out counts `elsewhere`; so does padding. Raises `UserError` for a mask that cannot be read.
    """
    import torch

    whole = picture_mask(draw.picture, tuple(boxes_of(draw.picture, boxes_column)))
    fitted = _fitted(whole, draw.fit)
    if draw.flip:
        fitted = ImageOps.mirror(fitted)
    width, height = draw.target
    small = fitted.resize((width // downscale, height // downscale), Image.Resampling.BOX)
    weights = torch.from_numpy(np.asarray(small, dtype=np.float32) / FULL)[None]
    return elsewhere + (1 - elsewhere) * weights


def _fitted(mask: Image.Image, fit: Fit) -> Image.Image:
    resized = mask if mask.size == fit.resize else mask.resize(fit.resize, Image.Resampling.BOX)
    x, y, width, height = fit.crop
    ground = Image.new("L", (width, height), NOTHING)
    ground.paste(resized, (-x, -y))
    return ground


@lru_cache(maxsize=16)
def _cached_mask(path: Path, mask: Path | None, size: tuple[int, int], boxes: tuple[Box, ...]) -> Image.Image:
    found = _read_mask(mask, size) if mask else _alpha(path, size)
    draw = ImageDraw.Draw(found)
    for left, top, right, bottom in boxes:
        if right > left and bottom > top:
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=NOTHING)
    return found


def picture_mask(picture: Picture, boxes: Sequence[Box] = ()) -> Image.Image:
    """The mask of a whole picture, mode L, at its upright size."""
    return _cached_mask(picture.path, picture.mask, picture.size, tuple(boxes))


def _read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    try:
        with opened(path) as image:
            mask = ImageOps.exif_transpose(image).convert("L")
    except BadPicture as error:
        raise UserError(f"the mask cannot be read: {error}", where=str(path)) from error
    if abs(mask.width / mask.height - size[0] / size[1]) > 0.02 * size[0] / size[1]:
        raise UserError(
            f"the mask is {mask.width}x{mask.height}, its picture {size[0]}x{size[1]}", where=str(path),
            fix="make them the same shape",
        )
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BOX)


def _alpha(path: Path, size: tuple[int, int]) -> Image.Image:
    """The picture's transparency; all of it counts where there is none."""
    try:
        with opened(path) as image:
            if not see_through(image):
                return Image.new("L", size, FULL)
            return ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    except BadPicture as error:
        raise UserError(f"the picture changed while training: {error}", where=str(path)) from error


def boxes_of(picture: Picture, column: str) -> list[Box]:
    """Boxes (left, top, right, bottom) in pixels from a column: a list of four numbers each, as pixels or, when none is
    over 1, as fractions. Raises `UserError`.
    """
    raw = picture.columns.get(column) if column else None
    if raw in (None, ""):
        return []
    try:
        listed = parse_json(raw) if isinstance(raw, str) else raw
        if listed and not isinstance(listed[0], (list, tuple)):
            listed = [listed]
        return [_pixels(tuple(map(float, box)), picture.size) for box in listed]
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{_short(raw)} are no boxes", where=f"{picture.path}: {column}",
            fix="write [[left, top, right, bottom], ...] in pixels or fractions",
        ) from error


def _pixels(box: Box, size: tuple[int, int]) -> Box:
    left, top, right, bottom = box
    if max(box) <= 1:
        return left * size[0], top * size[1], right * size[0], bottom * size[1]
    return left, top, right, bottom


def _short(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."

