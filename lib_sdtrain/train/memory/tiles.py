"""What the weights that are prepared for convolutions in tiles take."""
from __future__ import annotations

from functools import lru_cache

from torch import nn

from lib_sdtrain.model.build import empty_module
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import UNET
from lib_sdtrain.train.convolutions import worth_tiles
from lib_sdtrain.train.winograd import KERNEL_BYTES


@lru_cache(maxsize=64)
def kernel_bytes(family: Family, pixels: int) -> int:
    """Bytes of all `tile_kernels` of an untrained UNet in training; `pixels` are those of a batch's latents."""
    unet = empty_module(family, UNET)
    innermost = len(unet.down_blocks) - 1
    return sum(
        KERNEL_BYTES * layer.in_channels * layer.out_channels
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Conv2d) and worth_tiles(layer, pixels // 4 ** _level(name, innermost))
    )


def _level(name: str, innermost: int) -> int:
    """How often the pixels that a layer sees have been halved each way."""
    block, *below = name.split(".")
    if block == "mid_block":
        return innermost
    if block == "down_blocks":
        return int(below[0])
    if block == "up_blocks":
        return innermost - int(below[0]) - ("upsamplers" in below)
    return 0
