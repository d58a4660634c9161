"""Small pictures of pictures, for looking at a folder."""
from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps

from lib_sdtrain.data.pictures import decode, opened, read_bytes

SIDE = 256
QUALITY = 82


def thumbnail(path: Path, side: int = SIDE) -> bytes:
    """The whole picture, upright, as a JPEG of at most `side` pixels each way. Raises `BadPicture`."""
    content = read_bytes(path)
    picture = _quickly(content, side) or decode(content)
    picture.thumbnail((side, side))
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=QUALITY)
    return kept.getvalue()


def _quickly(content: bytes, side: int) -> Image.Image | None:
    """A JPEG decoded at a fraction of its size, which takes a fraction of the time; None for what needs more care."""
    with opened(io.BytesIO(content)) as image:
        if image.format != "JPEG" or image.mode != "RGB":
            return None
        image.draft("RGB", (2 * side, 2 * side))
        return ImageOps.exif_transpose(image)
