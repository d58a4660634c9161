"""What the weights that are prepared for convolutions in tiles take."""
from __future__ import annotations

from collections.abc import Iterable, Iterator

from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import VAEConfig
from lib_sdtrain.model.keys import UNET, part_rows
from lib_sdtrain.train.convolutions import ENCODER_CHANNELS, enough_to_encode_in_tiles, worth_tiles
from lib_sdtrain.train.winograd import KERNEL_BYTES, TILES_AT_ONCE


def kernel_bytes(checkpoint: Checkpoint, batch: int, sizes: Iterable[tuple[int, int]]) -> int:
    """Bytes of all `tile_kernels` of an untrained UNet once it has seen batches of latents of these `sizes`.

    A layer that is worth it at one size is prepared for all of them.
    """
    every, halved = list(sizes), len(checkpoint.family.unet.channel_mult) - 1
    seen = [max(batch * _halved(high, level) * _halved(wide, level) for high, wide in every)
            for level in range(halved + 1)]  # fmt: skip
    return sum(KERNEL_BYTES * channels[0] * channels[1]
               for level, channels in _layers(checkpoint, halved) if worth_tiles(*channels, seen[level]))  # fmt: skip


def encoder_bytes(vae: VAEConfig, area: int) -> int:
    """Bytes of all `tile_kernels` of a VAE's encoder once it has made latents of so many pixels, and of the tiles that
    are in memory together.
    """
    pairs = [(into, out) for level, into, out in _encoder_layers(vae) if min(into, out) >= ENCODER_CHANNELS
             and enough_to_encode_in_tiles(out, area * 4 ** (len(vae.channels) - 1 - level))]  # fmt: skip
    together = 3 * TILES_AT_ONCE * max(map(max, pairs), default=0)  # cut out, transformed, multiplied
    return KERNEL_BYTES * (sum(into * out for into, out in pairs) + together)


def _encoder_layers(vae: VAEConfig) -> Iterator[tuple[int, int, int]]:
    """How often pictures have been halved before each convolution of the residual blocks, two a block, two blocks more
    in the middle, and its channels.
    """
    before = vae.channels[0]
    for level, channels in enumerate(vae.channels):
        yield level, before, channels
        yield from [(level, channels, channels)] * (2 * vae.num_res_blocks - 1)
        before = channels
    yield from [(len(vae.channels) - 1, before, before)] * 4


def _halved(side: int, times: int) -> int:
    """Each convolution that halves a picture rounds its sides up."""
    return -(-side // 2**times)


def _layers(checkpoint: Checkpoint, innermost: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """How often pictures have been halved before each 3x3 convolution that keeps their size, and its channels."""
    for row in part_rows(checkpoint.family)[UNET]:
        out, into, *kernel = (*checkpoint.shape(row.key), 1, 1)
        if kernel[:2] == [3, 3] and "downsamplers" not in row.names[0]:
            yield _level(row.names[0], innermost), (into, out)


def _level(name: str, innermost: int) -> int:
    block, *below = name.split(".")
    if block == "mid_block":
        return innermost
    if block == "down_blocks":
        return int(below[0])
    if block == "up_blocks":
        return innermost - int(below[0]) - ("upsamplers" in below)
    return 0
