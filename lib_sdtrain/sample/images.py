"""Pictures as files: PNG with the infotext in the `parameters` chunk."""
from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_sdtrain.durable import write_atomically


@dataclass(frozen=True)
class Picture:
    """A sampled picture. `latents` (4, h, w) float32 on the CPU, not divided by the scale factor."""

    image: Image.Image
    latents: torch.Tensor
    seed: int
    infotext: str


class Told(Protocol):
    """Any picture that goes into a file with what is said of it."""

    image: Image.Image
    infotext: str


def save_png(picture: Told, path: Path) -> None:
    """Write a picture with its infotext, as the WebUI does; the file appears whole or not at all."""
    info, content = PngInfo(), io.BytesIO()
    info.add_text("parameters", picture.infotext)
    picture.image.save(content, format="PNG", pnginfo=info)
    write_atomically(path, content.getvalue())


def read_infotext(path: Path) -> str | None:
    """The infotext of a PNG file, None where it has none."""
    with Image.open(path) as image:
        return image.info.get("parameters")
