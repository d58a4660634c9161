"""Opening any picture right, and bringing it to the training size.

What is right: EXIF orientation applied, transparency laid over a colour, 16-bit, palette, grey and CMYK
pictures as 8-bit RGB. What cannot be read raises `BadPicture` with a reason for the user.
"""
from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]
"""(width, height)"""
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs, also where the host raised it
MAX_SIDE_RATIO = 64
ORIENTATION, UPRIGHT = 0x0112, 1
MAX_BYTES = 2 * 2**30  # the most pixels, uncompressed, in 16 bits with transparency, take 1.4 GB
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # as SUFFIXES
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, AttributeError, OverflowError,
    ZeroDivisionError, struct.error, zlib.error,
)


class BadPicture(Exception):  # noqa: N818 - reads as what it is
    """This file cannot be used as a picture; the message says why."""


@dataclass(frozen=True)
class Fit:
    """How a picture of one size lands on another: resize to `resize` (w, h), then take the box `crop` (x, y, w, h).

    A crop that starts at negative x or y, or is larger than the resized picture, is padding.
    """

    resize: tuple[int, int]
    crop: tuple[int, int, int, int]


def decode(content: bytes, background: str = "white") -> Image.Image:
    """An upright 8-bit RGB picture from a file's bytes. Raises `BadPicture`."""
    if not content:
        raise BadPicture("the file is empty")
    with opened(io.BytesIO(content)) as image:
        image.getexif()  # Pillow closes some files when it has their pixels
        image.load()
        turned = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT else image
        return to_rgb(turned, background)


@contextmanager
def opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    """A picture of one of the FORMATS as Pillow opens it. Raises `BadPicture`, also for what goes wrong while open.

    Pillow knows more: for PostScript, whatever its file is called, it would start Ghostscript.
    """
    Image.init()
    try:
        with Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            _check_size(image.size)
            yield image
    except UnidentifiedImageError as error:
        raise BadPicture("not a picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise BadPicture("far too many pixels for a photograph") from error
    except _DECODER_ERRORS as error:
        raise BadPicture(f"damaged: {error}".splitlines()[0]) from error


def open_picture(path: Path, background: str = "white") -> Image.Image:
    """`decode` of a file."""
    return decode(read_bytes(path), background)


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises `BadPicture` when it cannot be read."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadPicture(f"{size:,} bytes are far too many for a picture")
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot be read: {error.strerror or error}") from error


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width}x{height} is far too many pixels")
    if max(size) > MAX_SIDE_RATIO * min(size):
        raise BadPicture(f"{width}x{height} is too narrow to train on")


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """8-bit RGB from any mode, the same picture where it is that; transparency is laid over `background`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if see_through(image):
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def see_through(image: Image.Image) -> bool:
    """Whether a picture has transparency of any form."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (modes I;16 and I) scaled by 1/257, floating point (mode F) by its own 0..1 or 0..255 range."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    else:
        scale = 1 / 257 if values.max(initial=0.0) > 255 else 1.0
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8), "L")


def cover(size: tuple[int, int], target: tuple[int, int], where: tuple[float, float] = (0.5, 0.5)) -> Fit:
    """Fill `target` keeping the aspect, and crop the rest at the fraction `where` of the room (0.5: the middle)."""
    (width, height), (tw, th) = size, target
    scale = max(tw / width, th / height)
    resized = max(tw, round(width * scale)), max(th, round(height * scale))
    x, y = (int((have - want) * part) for have, want, part in zip(resized, target, where, strict=True))
    return Fit(resized, (x, y, tw, th))


def pad(size: tuple[int, int], target: tuple[int, int]) -> Fit:
    """Keep the whole picture, centred on a ground: ImageMagick's `-resize WxH -gravity center -extent WxH`."""
    (width, height), (tw, th) = size, target
    scale = min(tw / width, th / height)
    resized = max(1, min(tw, round(width * scale))), max(1, min(th, round(height * scale)))
    return Fit(resized, (-((tw - resized[0]) // 2), -((th - resized[1]) // 2), tw, th))


def apply_fit(image: Image.Image, fit: Fit, background: str = "white") -> Image.Image:
    """The picture at its training size (Lanczos)."""
    resized = image if image.size == fit.resize else image.resize(fit.resize, Image.Resampling.LANCZOS)
    x, y, width, height = fit.crop
    if x >= 0 and y >= 0 and x + width <= resized.width and y + height <= resized.height:
        return resized.crop((x, y, x + width, y + height))
    ground = Image.new("RGB", (width, height), ImageColor.getrgb(background)[:3])
    ground.paste(resized, (-x, -y))
    return ground


def look_of(image: Image.Image) -> int:
    """64 bits of what a picture looks like: whether it gets brighter from left to right, on an 8 x 8 grid (dHash).

    Pictures that look alike differ in few bits.
    """
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """(3, H, W) float32 in [-1, 1], as the VAE takes it."""
    import torch

    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.permute(2, 0, 1).float().div_(127.5).sub_(1.0)
