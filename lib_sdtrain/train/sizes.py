"""SDXL's size conditioning of a training picture (Podell et al. 2023, section 2.2)."""
from __future__ import annotations

from lib_sdtrain.data.draws import Draw


def sizes_of(draw: Draw) -> tuple[int, int, int, int, int, int]:
    """(original height, width, crop top, left, target height, width) in pixels.

    The original size is the file's, the crop's offset is counted in the resized picture, as in the paper and in
    bigASP's training. A mirrored picture is cropped on the other side of what is seen, a padded one not at all.
    """
    left, top, target_width, target_height = draw.fit.crop
    left, top = max(0, left), max(0, top)
    if draw.flip:
        left = max(0, draw.fit.resize[0] - target_width) - left
    width, height = draw.picture.size
    return height, width, top, left, target_height, target_width
