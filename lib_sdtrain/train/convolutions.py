"""The UNet's convolutions on a CPU, where there are faster ways than torch's kernel.

Over few pixels a layer has tens of megabytes of weights for a few dozen of them, and the kernel spends most of its time
on bringing the weights into an order of its own, again at every step. One product of matrices reads them as they lie:
1280 channels, 3x3, 32 pixels, forward and backward on two cores, 24.7 ms against 14.6, in bfloat16 24.4 against 6.6.

Over many pixels, weights that are not trained are worth being prepared once for Winograd's way, which needs a quarter
of the products: 640 channels, 2048 pixels, 100 ms against 46.
"""
from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, unfold

from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import FULL
from lib_sdtrain.train.winograd import TiledConvolution, convolve, tile_kernels

CHANNELS_A_PIXEL = {"no": 16, "bf16": 10}
"""By precision: how many channels come out for each pixel of the batch, at least, where the product is the faster."""
TILED_CHANNELS_A_PIXEL = 1.25
"""Channels that come out for each pixel, at most, where tiles are used: over fewer pixels, prepared weights take too
much memory for the time that they save."""
TILED_CHANNELS = 256
"""Channels that go in and out, at least, where tiles are used: cutting and joining them takes little time then."""
ENCODER_CHANNELS, ENCODER_CHANNELS_A_PIXEL = 256, 1
"""The same two for a VAE's encoder. Over half as many pixels tiles are still faster, but for a twentieth of the time
prepared weights would take twice the memory."""


def choose_convolutions(unet: nn.Module, device: str, settings: RunSettings) -> None:
    """Give the UNet's convolutions the faster ways for training on `device`."""
    precision = settings.train.mixed_precision
    if device != "cpu" or precision not in CHANNELS_A_PIXEL:
        return
    tiled = prepares_tiles(device, settings)
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
            layer.forward = Convolution(layer, CHANNELS_A_PIXEL[precision], tiled and _keeps_size(layer))


def choose_encoder(vae: nn.Module, device: str, settings: RunSettings) -> None:
    """Give the convolutions with which pictures are encoded the faster way, those that have it not."""
    for layer in vae.encoder.modules() if prepares_encoder(device, settings) else ():
        if encodes_in_tiles(layer) and "forward" not in vars(layer):
            layer.forward = EncoderConvolution(layer)


def forget_encoder(vae: nn.Module) -> None:
    """Let go of weights that were prepared for encoding."""
    for layer in vae.encoder.modules():
        vars(layer).pop("forward", None)


def encodes_in_tiles(layer: nn.Module) -> bool:
    """Whether a layer of a VAE's encoder is one that tiles are faster for."""
    return isinstance(layer, nn.Conv2d) and _keeps_size(layer) and (
        min(layer.in_channels, layer.out_channels) >= ENCODER_CHANNELS)


def enough_to_encode_in_tiles(channels_out: int, pixels: int) -> bool:
    """Whether such a layer's weights are prepared for a picture of which so many pixels come out of it."""
    return pixels * ENCODER_CHANNELS_A_PIXEL >= channels_out


def prepares_tiles(device: str, settings: RunSettings) -> bool:
    """Whether weights of the UNet are prepared for tiles: those that stay."""
    method = settings.method
    return (method.kind != FULL or not method.train_unet) and prepares_encoder(device, settings)


def prepares_encoder(device: str, settings: RunSettings) -> bool:
    """Whether weights that stay, as the VAE's do, are prepared for tiles: in 32 bits, unless memory is spared."""
    train = settings.train
    wanted = train.prepared_convolutions and not train.gradient_checkpointing
    return wanted and device == "cpu" and train.mixed_precision == "no"


def worth_tiles(channels_in: int, channels_out: int, pixels: int) -> bool:
    """Whether a layer's weights should be prepared for tiles when a batch's results have so many pixels."""
    enough = min(channels_in, channels_out) >= TILED_CHANNELS
    return enough and pixels * TILED_CHANNELS_A_PIXEL >= channels_out


def _keeps_size(layer: nn.Conv2d) -> bool:
    return (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))


class _InTiles:
    """A layer whose weights are prepared when they are first wanted in tiles: they must not change any more."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer

    @cached_property
    def kernels(self) -> Tensor:
        return tile_kernels(self.layer.weight)


class Convolution(_InTiles):
    """What `layer` makes of pictures (B, C, h, w), by the fastest way for so many pixels.

    For layers with zeros around the picture, without groups and dilation, as a UNet's are. One that is `tiled` is not
    trained.
    """

    def __init__(self, layer: nn.Conv2d, channels_a_pixel: float, tiled: bool) -> None:
        super().__init__(layer)
        self.channels_a_pixel, self.tiled = channels_a_pixel, tiled

    def __call__(self, x: Tensor) -> Tensor:
        layer, (height, width) = self.layer, self._size(x)
        pixels = len(x) * height * width
        if not torch.is_grad_enabled():  # previews are the sampler's
            return type(layer).forward(layer, x)
        if self.tiled and worth_tiles(layer.in_channels, layer.out_channels, pixels):
            return TiledConvolution.apply(x, self.kernels, layer.bias)
        if pixels * self.channels_a_pixel > layer.out_channels:
            return type(layer).forward(layer, x)
        seen = unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride).transpose(1, 2)
        # as one matrix: torch multiplies a stack of them in a slower way
        rows = linear(seen.flatten(0, 1), layer.weight.flatten(1), layer.bias).view(len(x), -1, layer.out_channels)
        return rows.transpose(1, 2).reshape(len(x), -1, height, width).contiguous()

    def _size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of what comes out."""
        facts = zip(x.shape[2:], self.layer.kernel_size, self.layer.padding, self.layer.stride, strict=True)
        height, width = ((side + 2 * zeros - kernel) // stride + 1 for side, kernel, zeros, stride in facts)
        return height, width


class EncoderConvolution(_InTiles):
    """What `layer`, of a VAE's encoder, makes of pictures (B, C, h, w), without gradients: in tiles where they have
    pixels enough for the weights to be read.
    """

    def __call__(self, x: Tensor) -> Tensor:
        layer, pixels = self.layer, len(x) * x.shape[2] * x.shape[3]
        if torch.is_grad_enabled() or not enough_to_encode_in_tiles(layer.out_channels, pixels):
            return type(layer).forward(layer, x)
        return convolve(x, self.kernels, layer.bias)
