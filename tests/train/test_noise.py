"""Noise in every form against what the formulas say: hand-worked values, moments of many samples, keyed draws."""
from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lib_sdtrain.settings.run_method import LossSettings
from lib_sdtrain.train import noise as noises
from tests.train.runs import run_settings
from tests.train.test_step import alpha_bar, double_batch, make_trainer

PLAIN = LossSettings()
CLEAN = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(1))


def made(loss, index=0, clean=CLEAN, is_class=False):
    return noises.noise_for(SimpleNamespace(index=index, is_class=is_class), clean, 7, loss)


def test_plain_noise_is_what_stands_under_every_form():
    offset = made(replace(PLAIN, noise_offset=0.1)) - made(PLAIN)
    assert torch.allclose(offset, offset[:, :1, :1].expand_as(offset), atol=1e-6)
    twice = made(replace(PLAIN, noise_offset=0.2)) - made(PLAIN)
    torch.testing.assert_close(twice, 2 * offset, rtol=1e-4, atol=1e-6)
    assert not torch.equal(made(PLAIN), made(PLAIN, is_class=True))
    assert torch.equal(made(PLAIN, index=5), made(PLAIN, index=5))


def test_an_offset_has_its_strength():
    loss = replace(PLAIN, noise_offset=0.1)
    offsets = torch.stack([(made(loss, n) - made(PLAIN, n))[:, 0, 0] for n in range(2000)])
    assert float(offsets.std()) == pytest.approx(0.1, rel=0.03)
    random = replace(loss, noise_offset_random_strength=True)
    offsets = torch.stack([(made(random, n) - made(PLAIN, n))[:, 0, 0] for n in range(2000)])
    # U(0, s) times N(0, 1): variance s^2 / 3
    assert float(offsets.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.05)


def test_an_adaptive_offset_follows_the_mean_of_the_channel():
    means = torch.tensor([-2.0, 0.5, 0.0, 1.0])
    clean = CLEAN - CLEAN.mean((1, 2), keepdim=True) + means[:, None, None]
    loss = replace(PLAIN, noise_offset=0.1, adaptive_noise_scale=-0.1)
    strength = noises.offset_strength(clean, loss)
    # max(0, 0.1 - 0.1 |m|): gone from |m| = 1 on
    assert strength.flatten().tolist() == pytest.approx([0.0, 0.05, 0.1, 0.0], abs=1e-6)
    difference = made(loss, clean=clean) - made(PLAIN, clean=clean)
    fixed = made(replace(PLAIN, noise_offset=0.1)) - made(PLAIN)
    torch.testing.assert_close(difference[1], fixed[1] / 2, rtol=1e-3, atol=1e-5)
    assert float(difference[0].abs().max()) < 1e-6


def test_pyramid_noise_has_unit_deviation_and_long_waves():
    flat = torch.randn(200, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    pyramids = torch.stack([
        noises.pyramid_noise(one, 6, 0.5, torch.Generator().manual_seed(n)) for n, one in enumerate(flat)
    ])
    assert float(pyramids.flatten(1).std(1).sub(1).abs().max()) < 1e-5
    # means of 8x8 squares of white noise have deviation 1/8; coarse levels add much to that
    coarse = [float(torch.nn.functional.avg_pool2d(x, 8).std()) for x in (flat, pyramids)]
    assert coarse[0] == pytest.approx(1 / 8, rel=0.05)
    assert coarse[1] > 1.5 * coarse[0]


def test_the_first_level_of_a_pyramid_is_a_second_noise_of_full_size():
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(9)
    torch.rand(1, generator=generator)
    second = torch.randn(4, 8, 8, generator=generator)
    wanted = (noise + second) / (noise + second).std()
    torch.testing.assert_close(noises.pyramid_noise(noise, 1, 0.3, torch.Generator().manual_seed(9)), wanted)


def test_a_pyramid_ends_where_a_side_is_one_pixel():
    asked = []
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn

    def counted(*shape, **more):
        asked.append(shape)
        return draw(*shape, **more)

    torch.randn, kept = counted, torch.randn
    try:
        noises.pyramid_noise(draw(1, 8, 16), 16, 0.3, generator)
    finally:
        torch.randn = kept
    heights, widths = [shape[1] for shape in asked], [shape[2] for shape in asked]
    assert (heights[0], widths[0]) == (8, 16)
    assert heights[-1] == 1
    assert 1 not in heights[:-1]
    assert len(asked) < 16


def test_input_perturbation_changes_what_is_seen_and_not_what_is_asked(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 2)
    plain = make_trainer(run_settings(tiny_checkpoint, folder), tmp_path)
    moved = make_trainer(run_settings(tiny_checkpoint, folder, loss__input_perturbation=0.1), tmp_path)
    one, two = double_batch(plain), double_batch(moved)
    assert torch.equal(one.noise, two.noise)
    x, n, t = two.latents, two.noise, int(two.timesteps[0])
    a = alpha_bar(t)
    extra = (moved.criterion.noisy(two, x) - (a**0.5 * x + (1 - a) ** 0.5 * n)) / (1 - a) ** 0.5 / 0.1
    assert float(extra.std()) == pytest.approx(1.0, abs=0.15)
    assert torch.equal(moved.criterion.target(two, x), n)


def test_samples_count_by_their_weights(tiny_checkpoint, picture_folder, tmp_path):
    trainer = make_trainer(run_settings(tiny_checkpoint, picture_folder("i", 2), train__batch_size=2), tmp_path)
    batch = double_batch(trainer)
    prediction, target = trainer.answer(batch)
    own = (prediction - target).pow(2).flatten(1).mean(1)
    for weights in itertools.product((0.0, 1.0, 2.5), repeat=2):
        weighted = replace(batch, weights=torch.tensor(weights, dtype=torch.float64))
        total = trainer.criterion.total(prediction, target, weighted)
        wanted = (own[0] * weights[0] + own[1] * weights[1]) / 2
        assert total.item() == pytest.approx(wanted.item(), rel=1e-9)
