"""A convolution over few pixels as a product of matrices is another way to the same numbers."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from lib_sdtrain.train import convolutions

ALWAYS = 0


def answers(layer, forward, x):
    x = x.clone().requires_grad_()
    made = forward(x)
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    return [made, *torch.autograd.grad(made.sin().sum(), [x, *weights])]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 1, 2)])
def test_values_and_gradients_are_those_of_the_convolution(kernel, stride, padding, bias, frozen):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 10, kernel, stride, padding, bias=bias).double().requires_grad_(not frozen)
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    expected = answers(layer, layer, x)
    got = answers(layer, partial(convolutions.convolve, layer, ALWAYS), x)
    for one, other in zip(expected, got, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-12)
    assert got[0].is_contiguous()


def test_where_there_are_more_pixels_it_is_torchs_own_kernel():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 64, 3, padding=1), torch.randn(1, 4, 2, 2)
    assert torch.equal(convolutions.convolve(layer, 17, x), layer(x))
    for channels_a_pixel, product in ((16, True), (17, False)):  # 64 channels, 4 pixels
        made = convolutions.convolve(layer, channels_a_pixel, x)
        assert (type(made.grad_fn).__name__ == "ConvolutionBackward0") != product


@pytest.mark.parametrize(("device", "precision", "chosen"), [
    ("cpu", "no", True), ("cpu", "bf16", True), ("cpu", "fp16", False), ("cuda", "no", False),
])  # fmt: skip
def test_only_a_cpu_is_faster_so_and_only_with_kernels_of_several_pixels(device, precision, chosen):
    unet = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
    convolutions.choose_convolutions(unet, device, precision)
    assert ["forward" in vars(layer) for layer in unet] == [chosen, False, False]


def test_what_is_only_drawn_is_drawn_as_everywhere(monkeypatch):
    monkeypatch.delattr(convolutions, "unfold")
    layer, x = nn.Conv2d(32, 64, 3, padding=1), torch.randn(1, 32, 2, 2)
    with torch.no_grad():
        assert torch.equal(convolutions.convolve(layer, ALWAYS, x), layer(x))


def test_mixed_precision_narrows_it_as_it_narrows_a_convolution():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(32, 64, 3, padding=1), torch.randn(1, 32, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = layer(x), convolutions.convolve(layer, ALWAYS, x)
    assert got.dtype == torch.bfloat16
    assert torch.allclose(expected.float(), got.float(), atol=2**-7)
