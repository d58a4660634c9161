"""Convolutions by a product of matrices and in tiles: other ways to the same numbers."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_sdtrain.events import Step
from lib_sdtrain.train import convolutions, loop, winograd
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_step import double_batch, make_trainer

ALWAYS = 0


def settings_of(**changes):
    return run_settings("toybox", "pictures", **changes)


def product(layer, channels_a_pixel=ALWAYS):
    return convolutions.Convolution(layer, channels_a_pixel, tiled=False)


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
    got = answers(layer, product(layer), x)
    for one, other in zip(expected, got, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-12)
    assert got[0].is_contiguous()


def test_where_there_are_more_pixels_it_is_torchs_own_kernel():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 64, 3, padding=1), torch.randn(1, 4, 2, 2)
    assert torch.equal(product(layer, 17)(x), layer(x))
    for channels_a_pixel, multiplied in ((16, True), (17, False)):  # 64 channels, 4 pixels
        made = product(layer, channels_a_pixel)(x)
        assert (type(made.grad_fn).__name__ == "ConvolutionBackward0") != multiplied


@pytest.mark.parametrize(("device", "precision", "chosen"), [
    ("cpu", "no", True), ("cpu", "bf16", True), ("cpu", "fp16", False), ("cuda", "no", False),
])  # fmt: skip
def test_only_a_cpu_is_faster_so_and_only_with_kernels_of_several_pixels(device, precision, chosen):
    unet = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
    convolutions.choose_convolutions(unet, device, settings_of(train__mixed_precision=precision))
    assert ["forward" in vars(layer) for layer in unet] == [chosen, False, False]


def test_what_is_only_drawn_is_drawn_as_everywhere(monkeypatch):
    monkeypatch.delattr(convolutions, "unfold")
    layer, x = nn.Conv2d(32, 64, 3, padding=1), torch.randn(1, 32, 2, 2)
    with torch.no_grad():
        assert torch.equal(product(layer)(x), layer(x))


def test_mixed_precision_narrows_it_as_it_narrows_a_convolution():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(32, 64, 3, padding=1), torch.randn(1, 32, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = layer(x), product(layer)(x)
    assert got.dtype == torch.bfloat16
    assert torch.allclose(expected.float(), got.float(), atol=2**-7)


TILED = "TiledConvolutionBackward"


def chosen(device="cpu", settings=None, **facts):
    layer = nn.Conv2d(**{"in_channels": 256, "out_channels": 320, "kernel_size": 3, "padding": 1, **facts})
    choices = {"method__kind": "lora", **(settings or {})}
    convolutions.choose_convolutions(nn.Sequential(layer.requires_grad_(False)), device, settings_of(**choices))
    return layer


def way(layer, side):
    """Which way a batch of one picture goes."""
    x = torch.zeros(1, layer.in_channels, side, side, requires_grad=True)
    return type(layer(x).grad_fn).__name__


def test_untrained_weights_are_prepared_for_tiles_where_there_are_pixels_enough():
    layer = chosen()
    assert way(layer, 16) == TILED
    assert way(layer, 15) != TILED  # 225 pixels, 320 channels
    assert way(chosen(out_channels=255), 16) != TILED
    assert way(chosen(in_channels=255), 16) != TILED


@pytest.mark.parametrize("settings", [
    {"method__kind": "embedding"}, {"method__kind": "full", "method__train_unet": False},
])  # fmt: skip
def test_tiles_are_for_every_unet_that_stays_as_it_is(settings):
    assert way(chosen(settings=settings), 33) == TILED


@pytest.mark.parametrize("facts", [
    {"device": "cuda"}, {"stride": 2}, {"kernel_size": 1, "padding": 0}, {"padding": 0},
    *({"settings": settings} for settings in (
        {"method__kind": "full"}, {"train__gradient_checkpointing": True}, {"train__prepared_convolutions": False},
        {"train__mixed_precision": "bf16"}, {"train__mixed_precision": "fp16"})),
])  # fmt: skip
def test_everything_else_goes_another_way(facts):
    assert way(chosen(**facts), 33) != TILED


@pytest.fixture
def prepared(monkeypatch):
    """The weights that have been prepared for tiles."""
    weights = []

    def prepare(weight):
        weights.append(weight)
        return winograd.tile_kernels(weight)

    monkeypatch.setattr(convolutions, "tile_kernels", prepare)
    return weights


def test_what_is_prepared_is_prepared_once(prepared):
    layer, x = chosen(), torch.randn(1, 256, 16, 16)
    assert torch.equal(layer(x), layer(x))
    assert len(prepared) == 1


def test_tiles_are_for_training_only():
    layer, x = chosen(), torch.randn(1, 256, 16, 16)
    with torch.no_grad():
        assert torch.equal(layer(x), nn.Conv2d.forward(layer, x))


@pytest.mark.parametrize("method", [
    {"method__kind": "lora", "method__conv_rank": 2}, {"method__train_unet": False},
    {"method__kind": "embedding", "embedding__name": "sks", "embedding__init_words": "cat"},
])  # fmt: skip
def test_a_run_in_tiles_has_the_same_gradients(method, prepared, monkeypatch, picture_folder, tmp_path):
    """Whatever is trained beside a UNet that stays as it is; in double precision."""
    monkeypatch.setattr(convolutions, "TILED_CHANNELS", 1)
    settings = run_settings(write_tiny(tmp_path / "model.safetensors", "sd1"), picture_folder("i", 3), **method)

    def gradients(channels_a_pixel):
        monkeypatch.setattr(convolutions, "TILED_CHANNELS_A_PIXEL", channels_a_pixel)
        trainer = make_trainer(settings, tmp_path)
        trained = [parameter for part in trainer.parts.values() for parameter in part.double().parameters()]
        for parameter in trained:
            parameter.data += 0.01  # a LoRA starts at zero
        trainer.loss(double_batch(trainer)).backward()
        return [parameter.grad for parameter in trained if parameter.grad is not None]

    plain = gradients(0)
    assert not prepared
    tiled = gradients(1000)
    assert prepared
    assert len(tiled) == len(plain) > 0
    for one, other in zip(tiled, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-12)


@pytest.fixture
def encoder():
    """A VAE's encoder of two sizes, and the layers of it that tiles are faster for."""
    torch.manual_seed(0)
    convolution = {"kernel_size": 3, "padding": 1}
    vae = nn.Module()
    vae.encoder = nn.ModuleDict({
        "in": nn.Conv2d(3, 256, **convolution), "same": nn.Conv2d(256, 256, **convolution),
        "more": nn.Conv2d(256, 320, **convolution), "halved": nn.Conv2d(320, 320, 3, 2, 1),
        "one": nn.Conv2d(320, 320, 1), "out": nn.Conv2d(320, 8, **convolution),
    })  # fmt: skip
    return vae, ["same", "more"]


def has_the_faster_way(vae):
    return [name for name, layer in vae.encoder.items() if "forward" in vars(layer)]


@torch.no_grad()
def test_an_encoder_prepares_its_weights_once_and_lets_them_go(encoder, prepared):
    vae, expected = encoder
    layer, x = vae.encoder["same"], torch.randn(1, 256, 16, 16)
    plain = layer(x)
    convolutions.choose_encoder(vae, "cpu", settings_of())
    assert has_the_faster_way(vae) == expected
    tiled = layer(x)
    convolutions.choose_encoder(vae, "cpu", settings_of())  # it is asked for each picture
    assert torch.equal(layer(x), tiled)
    assert len(prepared) == 1
    error = (tiled - plain).square().mean().sqrt() / plain.square().mean().sqrt()
    assert 0 < error < 5e-6
    assert torch.equal(layer(x[:, :, :15]), nn.Conv2d.forward(layer, x[:, :, :15]))  # 240 pixels, 256 channels
    assert len(prepared) == 1
    convolutions.forget_encoder(vae)
    assert has_the_faster_way(vae) == []
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize(("device", "changes"), [
    ("cuda", {}), ("cpu", {"train__prepared_convolutions": False}), ("cpu", {"train__gradient_checkpointing": True}),
    ("cpu", {"train__mixed_precision": "bf16"}),
])  # fmt: skip
def test_an_encoder_stays_as_it_is_where_memory_is_spared_or_it_is_no_faster(encoder, device, changes):
    convolutions.choose_encoder(encoder[0], device, settings_of(**changes))
    assert has_the_faster_way(encoder[0]) == []


def test_gradients_of_an_encoder_are_torchs(encoder):
    vae, _ = encoder
    convolutions.choose_encoder(vae, "cpu", settings_of())
    made = vae.encoder["same"](torch.randn(1, 256, 16, 16, requires_grad=True))
    assert type(made.grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize("cached", ["memory", "none"])
def test_a_run_encodes_in_tiles_and_lets_them_go_when_all_is_cached(
    cached, prepared, monkeypatch, tmp_path, picture_folder
):
    """The latents are those of a plain VAE but for rounding."""
    monkeypatch.setattr(convolutions, "ENCODER_CHANNELS", 1)
    monkeypatch.setattr(convolutions, "ENCODER_CHANNELS_A_PIXEL", 1000)
    folder, models = picture_folder("subject", 2), []
    free = loop.free_vae
    monkeypatch.setattr(loop, "free_vae", lambda plan, model: (models.append(model), free(plan, model)))

    def losses(wanted):
        settings = run_settings(
            write_tiny(tmp_path / "model.safetensors", "sd1"), folder, data__cache_latents=cached,
            train__prepared_convolutions=wanted, train__length=2,
        )
        seen = finish(loop.train(settings, run_dir=tmp_path / "runs" / f"{cached} {wanted}"))
        return [event.loss for event in of_kind(seen, Step)]

    plain = losses(False)
    assert not prepared
    assert losses(True) == pytest.approx(plain, rel=1e-5)
    assert prepared
    kept = [layer for layer in models[-1].vae.encoder.modules() if "forward" in vars(layer)]
    assert bool(kept) == (cached == "none")
