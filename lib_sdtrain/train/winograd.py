"""3x3 convolutions with weights that stay as they are, by Winograd's minimal filtering.

Lavin & Gray 2016, Fast Algorithms for Convolutional Neural Networks, F(4x4, 3x3): a tile of 6x6 values gives 4x4
results with 36 products for each pair of channels in place of 144. The weights' side is computed once and kept, which
takes four times as much as the weights. Rounding errors in 32 bits are about ten times those of a plain convolution,
2e-6 of the results, a hundred times less than TF32's.
"""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

OUT, IN = 4, 6
"""Results and values along a tile's side."""
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where polynomials are evaluated, beside infinity: with these, errors are small."""
TILES_AT_ONCE = 512
"""Tiles of a large picture that are in memory together where no gradient is wanted: their values take 2.25 times as
much as the picture's, and from so many on more are no faster."""
KERNEL_BYTES = IN * IN * 4
"""What `tile_kernels` takes for each pair of channels."""


def tile_kernels(weight: Tensor) -> Tensor:
    """The weights' side, (36, out, in), of a 3x3 kernel (out, in, 3, 3)."""
    taps = weight.detach().permute(2, 3, 0, 1).reshape(9, -1)
    return (_both_ways("kernel", weight.dtype) @ taps).unflatten(1, weight.shape[:2])


class TiledConvolution(torch.autograd.Function):
    """`apply(x, kernels, bias)`: x (B, in, h, w) through a 3x3 convolution with one pixel of zeros around it.

    `kernels` are `tile_kernels` of its weights, `bias` is (out,) or None; neither gets a gradient. That of x is found
    by the transpose of each step, in reverse.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(kernels)
        return _finished(_results(_with_zeros(x), kernels), x.shape, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kernels,) = ctx.saved_tensors
        products = _both_ways("results", gradient.dtype).T @ _cut(gradient).flatten(1)
        values = products.unflatten(1, (-1, gradient.shape[1])) @ kernels  # with pixels first, as it is the faster way
        tiles = _both_ways("values", gradient.dtype).T @ values.flatten(1)
        return _added_up(tiles, kernels.shape[2], gradient.shape), None, None


def convolve(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """`TiledConvolution` without gradients, over a few rows of tiles at a time."""
    height, wide = x.shape[2], _tiles(x.shape[3])
    rows = OUT * max(1, TILES_AT_ONCE // (len(x) * wide))
    around = _with_zeros(x)
    made = [_results(around[:, :, top : top + min(rows, OUT * _tiles(height - top)) + IN - OUT], kernels)
            for top in range(0, height, rows)]  # fmt: skip
    return _finished(torch.cat(made, dim=2), x.shape, bias)


def _finished(picture: Tensor, shape: torch.Size, bias: Tensor | None) -> Tensor:
    """What whole tiles gave, as large as the input of this shape, with the bias."""
    picture = picture[:, :, : shape[2], : shape[3]].contiguous()
    return picture if bias is None else picture.add_(bias[:, None, None])


def _results(around: Tensor, kernels: Tensor) -> Tensor:
    """Of (B, in, 4 high + 2, 4 wide + 2), a picture with what lies around it: (B, out, 4 high, 4 wide)."""
    batch, channels, *sides = around.shape
    high, wide = ((side + OUT - IN) // OUT for side in sides)
    values = _both_ways("values", around.dtype) @ _cut_out(around).flatten(1)
    products = kernels @ values.unflatten(1, (channels, -1))
    results = _both_ways("results", around.dtype) @ products.flatten(1)
    pictures = results.view(OUT, OUT, -1, batch, high, wide).permute(3, 2, 4, 0, 5, 1)
    return pictures.reshape(batch, -1, OUT * high, OUT * wide)


def _powers(count: int) -> Tensor:
    """The first `count` powers of each point; of infinity, the last one: (6, count)."""
    powers = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** torch.arange(count)
    return torch.cat([powers, torch.eye(count, dtype=torch.float64)[-1:]])


@lru_cache(maxsize=16)
def _both_ways(side: str, dtype: torch.dtype) -> Tensor:
    """The transform of a tile's rows and columns as one matrix: of the `kernel`, of the `values` or to the `results`.

    A product of polynomials, evaluated, multiplied and interpolated; a convolution is its transpose.
    """
    rows = {"kernel": _powers(3), "values": torch.linalg.inv(_powers(IN)).T, "results": _powers(OUT).T}[side]
    return torch.kron(rows, rows).to(dtype)


def _tiles(length: int) -> int:
    return -(-length // OUT)


def _with_zeros(x: Tensor) -> Tensor:
    """One pixel of zeros around, and as many more as make tiles whole: (B, in, 4 high + 2, 4 wide + 2)."""
    height, width = x.shape[2:]
    return pad(x, (1, OUT * _tiles(width) + 1 - width, 1, OUT * _tiles(height) + 1 - height))


def _cut_out(around: Tensor) -> Tensor:
    """All tiles of 6x6 at a distance of 4: (36, in, B * tiles)."""
    tiles = around.unfold(2, IN, OUT).unfold(3, IN, OUT)  # (B, in, high, wide, 6, 6)
    return tiles.permute(4, 5, 1, 0, 2, 3).reshape(IN * IN, around.shape[1], -1)


def _added_up(tiles: Tensor, channels: int, shape: torch.Size) -> Tensor:
    """The opposite of both, from tiles (36, B * tiles * in): where they overlap, they add up."""
    batch, _channels, height, width = shape
    high, wide, over = _tiles(height), _tiles(width), IN - OUT
    tiles = tiles.view(IN, IN, batch, high, wide, channels).permute(2, 5, 3, 0, 4, 1)
    picture = tiles.new_zeros(batch, channels, high + 1, OUT, wide + 1, OUT)
    picture[:, :, :-1, :, :-1] = tiles[:, :, :, :OUT, :, :OUT]
    picture[:, :, 1:, :over, :-1] += tiles[:, :, :, OUT:, :, :OUT]
    picture[:, :, :-1, :, 1:, :over] += tiles[:, :, :, :OUT, :, OUT:]
    picture[:, :, 1:, :over, 1:, :over] += tiles[:, :, :, OUT:, :, OUT:]
    return picture.flatten(4).flatten(2, 3)[:, :, 1 : 1 + height, 1 : 1 + width].contiguous()


def _cut(pictures: Tensor) -> Tensor:
    """Tiles of 4x4, side by side, with pixels before channels: (16, B * tiles, out)."""
    batch, channels, height, width = pictures.shape
    high, wide = _tiles(height), _tiles(width)
    whole = pad(pictures, (0, OUT * wide - width, 0, OUT * high - height))
    tiles = whole.view(batch, channels, high, OUT, wide, OUT).permute(3, 5, 0, 2, 4, 1)
    return tiles.reshape(OUT * OUT, batch * high * wide, channels)
