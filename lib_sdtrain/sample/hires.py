"""Hires fix: sizes, step arithmetic and upscaling between the two passes."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from lib_sdtrain.errors import UserError
from lib_sdtrain.sample.infotext import old_first_pass
from lib_sdtrain.settings.sample import SampleRequest

LATENT_MODES = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""Name to (mode, antialias) of torch's interpolate."""
PICTURE_MODES = {
    "None": None, "Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST,
}
UPSCALERS = (*LATENT_MODES, *PICTURE_MODES)


@dataclass(frozen=True)
class Sizes:
    """In pixels: the first pass, what it is scaled to, and how many latent pixels are then cut off."""

    width: int
    height: int
    upscale_width: int = 0
    upscale_height: int = 0
    cut_x: int = 0
    cut_y: int = 0


def sizes(request: SampleRequest) -> Sizes:
    """Sizes of both passes.

    Resize-to covers the wanted size and crops the rest; with one side given the other follows the first pass.
    Source: AUTOMATIC1111 WebUI 1.10.1, processing.py:calculate_target_resolution.
    """
    width, height = request.width, request.height
    if request.firstphase_width or request.firstphase_height:
        width, height = request.firstphase_width, request.firstphase_height
    if not request.enable_hr:
        return Sizes(width, height)
    x, y = request.hr_resize_x, request.hr_resize_y
    if request.options.use_old_hires_fix_width_height:
        x, y = width, height
        width, height = old_first_pass(width, height)
    if x == 0 and y == 0:
        return Sizes(width, height, int(width * request.hr_scale), int(height * request.hr_scale))
    by_width = (x, x * height // width)
    by_height = (y * width // height, y)
    if y == 0:
        return Sizes(width, height, *by_width)
    if x == 0:
        return Sizes(width, height, *by_height)
    to = by_width if width / height < x / y else by_height
    return Sizes(width, height, *to, (to[0] - x) // 8, (to[1] - y) // 8)


def second_pass_steps(steps: int, denoising_strength: float) -> tuple[int, int]:
    """(length of the schedule, index of its level at which the pass starts, counted from its end).

    All of `steps` are run, so the schedule is longer: steps / strength, strength at most 0.999.
    """
    if denoising_strength <= 0:
        return 0, steps - 1
    return int(steps / min(denoising_strength, 0.999)), steps - 1


def upscale_latents(latents: torch.Tensor, name: str, to: Sizes) -> torch.Tensor:
    """Latents (B, C, h, w) scaled by one of `LATENT_MODES` to the wanted size."""
    mode, antialias = LATENT_MODES[name]
    return F.interpolate(latents, size=(to.upscale_height // 8, to.upscale_width // 8), mode=mode, antialias=antialias)


def crop_latents(latents: torch.Tensor, to: Sizes) -> torch.Tensor:
    """What resize-to cuts off, half on either side."""
    height, width = latents.shape[2:]
    rows = slice(to.cut_y // 2, height - (to.cut_y + 1) // 2)
    return latents[:, :, rows, to.cut_x // 2 : width - (to.cut_x + 1) // 2]


def upscale_picture(image: Image.Image, name: str, width: int, height: int) -> Image.Image:
    """A picture scaled as the WebUI's own upscalers do.

    An upscaler enlarges to multiples of 8 first; Lanczos brings the result, or a smaller picture, to its size.
    """
    scale = max(width / image.width, height / image.height)
    if scale > 1 and name != "None":
        image = _enlarged(image, PICTURE_MODES[name], scale)
    if image.size != (width, height):
        image = image.resize((width, height), resample=Image.Resampling.LANCZOS)
    return image


def _enlarged(image: Image.Image, resample: Image.Resampling, scale: float) -> Image.Image:
    wanted = (int(image.width * scale // 8 * 8), int(image.height * scale // 8 * 8))
    for _ in range(3):
        if image.width >= wanted[0] and image.height >= wanted[1]:
            break
        image = image.resize((int(image.width * scale), int(image.height * scale)), resample=resample)
    return image if image.size == wanted else image.resize(wanted, resample=Image.Resampling.LANCZOS)


def check_upscaler(name: str) -> None:
    """Raise `UserError` for an upscaler that is not one of `UPSCALERS`."""
    if name not in UPSCALERS:
        raise UserError(f"no upscaler is called {name!r}", where="hr_upscaler", fix="known: " + ", ".join(UPSCALERS))


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """A picture from (3, h, w) in [0, 1]; values are cut off to 8 bits, not rounded, as the WebUI does."""
    return Image.fromarray((255.0 * np.moveaxis(pixels.cpu().numpy(), 0, 2)).astype(np.uint8))


def from_picture(image: Image.Image) -> torch.Tensor:
    """(3, h, w) in [0, 1] from a picture."""
    return torch.from_numpy(np.moveaxis(np.asarray(image, dtype=np.float32) / 255.0, 2, 0).copy())
