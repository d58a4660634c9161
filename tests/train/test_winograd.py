"""Convolutions in tiles against torch's, in double precision and in single."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from lib_sdtrain.train import winograd
from lib_sdtrain.train.winograd import TiledConvolution, convolve, tile_kernels


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(x, weight, bias=None):
    """Tiles' and torch's answer, and the gradient that each hands on for the same one."""
    found = []
    for forward in (lambda x: TiledConvolution.apply(x, tile_kernels(weight), bias),
                    lambda x: conv2d(x, weight, bias, padding=1)):  # fmt: skip
        x = x.clone().requires_grad_()
        made = forward(x)
        found.append((made, torch.autograd.grad(made, x, drawn(*made.shape, seed=9).to(made))[0]))
    return found


@settings(deadline=None)
@given(batch=st.integers(1, 3), channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
       height=st.integers(1, 14), width=st.integers(1, 14))  # fmt: skip
def test_values_and_gradients_are_those_of_the_convolution(batch, channels, height, width):
    into, out = channels
    x, weight = drawn(batch, into, height, width), drawn(out, into, 3, 3)
    for one, other in zip(*both(x, weight, drawn(out)), strict=True):
        assert one.shape == other.shape
        assert one.is_contiguous()
        assert torch.allclose(one, other, rtol=0, atol=1e-11)


@settings(deadline=None)
@given(batch=st.integers(1, 2), height=st.integers(1, 30), width=st.integers(1, 14), together=st.integers(1, 9))
def test_without_gradients_it_is_computed_in_pieces(batch, height, width, together):
    x, weight, bias = drawn(batch, 3, height, width), drawn(4, 3, 3, 3), drawn(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES_AT_ONCE", together)
        made = convolve(x, tile_kernels(weight), bias)
    assert made.is_contiguous()
    assert torch.allclose(made, conv2d(x, weight, bias, padding=1), rtol=0, atol=1e-11)


def test_gradient_is_the_transpose_of_the_computation():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    kernels = tile_kernels(torch.randn(2, 3, 3, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: TiledConvolution.apply(x, kernels, None), x)


def test_rounding_errors_in_32_bits_are_small():
    x, weight = drawn(2, 320, 16, 16), drawn(320, 320, 3, 3) / 54
    for value, true in zip(both(x.float(), weight.float())[0], both(x, weight)[1], strict=True):
        error = (value.double() - true).square().mean().sqrt() / true.square().mean().sqrt()
        assert error < 5e-6


def test_memory_may_lie_in_any_order():
    x, weight = (drawn(2, 4, 8, 6), drawn(3, 4, 3, 3))
    last = {"memory_format": torch.channels_last}
    for one, other in zip(both(x.contiguous(**last), weight.contiguous(**last))[0], both(x, weight)[1], strict=True):
        assert torch.allclose(one, other)
    x.requires_grad_()
    tiled, plain = TiledConvolution.apply(x, tile_kernels(weight), None), conv2d(x, weight, padding=1)
    one, other = (torch.autograd.grad(made.sum(), x)[0] for made in (tiled, plain))  # by one value that stands for all
    assert torch.allclose(one, other)


def test_kernels_take_what_is_told_of_them():
    kernels = tile_kernels(torch.zeros(7, 5, 3, 3))
    assert kernels.shape == (36, 7, 5)
    assert kernels.nbytes == winograd.KERNEL_BYTES * 7 * 5
