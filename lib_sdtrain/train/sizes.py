"""SDXL's size conditioning of a training picture (Podell et al. 2023, section 2.2)."""
from __future__ import annotations

from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.latents import fit_for
from lib_sdtrain.settings.run import DataSettings


def sizes_of(draw: Draw, target: tuple[int, int], data: DataSettings) -> tuple[int, int, int, int, int, int]:
    """(original height, width, crop top, left, target height, width) in pixels; `target` is (width, height).

    The original size is the file's, the crop's offset is counted in the resized picture, as in the paper and in
    bigASP's training. A mirrored picture is cropped on the other side of what is seen, a padded one not at all.
    """
    fit = fit_for(draw.picture.size, target, data, draw.crop)
    left, top = (max(0, offset) for offset in fit.crop[:2])
    if draw.flip:
        left = max(0, fit.resize[0] - target[0]) - left
    width, height = draw.picture.size
    return height, width, top, left, target[1], target[0]
