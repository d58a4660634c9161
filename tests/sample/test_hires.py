"""Sizes, steps and upscaling of hires fix."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lib_sdtrain.sample.hires import (
    LATENT_MODES,
    Sizes,
    crop_latents,
    from_picture,
    second_pass_steps,
    sizes,
    to_picture,
    upscale_latents,
    upscale_picture,
)
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest


def hires(**fields):
    return sizes(SampleRequest(enable_hr=True, **fields))


@pytest.mark.parametrize(("fields", "found"), [
    ({"width": 512, "height": 768, "hr_scale": 1.5}, Sizes(512, 768, 768, 1152)),
    ({"width": 64, "height": 64, "hr_scale": 1.7}, Sizes(64, 64, 108, 108)),
    ({"width": 512, "height": 768, "hr_resize_x": 1000}, Sizes(512, 768, 1000, 1500)),
    ({"width": 512, "height": 768, "hr_resize_y": 1000}, Sizes(512, 768, 666, 1000)),
    ({"width": 448, "height": 704, "hr_resize_x": 960, "hr_resize_y": 1600}, Sizes(448, 704, 1018, 1600, 7, 0)),
    ({"width": 96, "height": 64, "hr_resize_x": 88, "hr_resize_y": 120}, Sizes(96, 64, 180, 120, 11, 0)),
    ({"width": 960, "height": 1600, "options": SampleOptions(use_old_hires_fix_width_height=True)},
     Sizes(448, 704, 1018, 1600, 7, 0)),
    ({"width": 128, "height": 192, "firstphase_width": 64, "firstphase_height": 96}, Sizes(64, 96, 128, 192)),
])
def test_sizes(fields, found):
    assert hires(**fields) == found


def test_without_hires_there_is_one_size():
    assert sizes(SampleRequest(width=320, height=640)) == Sizes(320, 640)
    assert sizes(SampleRequest(width=320, height=640, firstphase_width=64, firstphase_height=128)) == Sizes(64, 128)


@pytest.mark.parametrize(("steps", "strength", "length"), [(12, 0.7, 17), (20, 0.5, 40), (10, 1.0, 10), (7, 0.0, 0)])
def test_all_steps_of_the_second_pass_are_run(steps, strength, length):
    assert second_pass_steps(steps, strength) == (length, steps - 1)


@pytest.mark.parametrize("name", LATENT_MODES)
def test_latents_are_scaled_to_the_target(name):
    to = Sizes(64, 64, 108, 96)
    assert upscale_latents(torch.zeros(2, 4, 8, 8), name, to).shape == (2, 4, 12, 13)


def test_cropping_takes_half_from_either_side():
    latents = torch.arange(22.0).repeat(1, 1, 15, 1)
    cut = crop_latents(latents, Sizes(96, 64, 180, 120, 11, 0))
    assert cut.shape == (1, 1, 15, 11)
    assert cut[0, 0, 0, 0] == 5


@pytest.mark.parametrize("name", ["Lanczos", "Nearest", "None"])
@pytest.mark.parametrize("size", [(108, 108), (64, 64), (40, 40), (65, 100)])
def test_pictures_come_out_at_their_size(name, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    larger = upscale_picture(image, name, *size)
    assert larger.size == size
    if size == (64, 64):
        assert np.array_equal(np.asarray(larger), np.asarray(image))


def test_nearest_doubles_every_pixel():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    doubled = np.asarray(upscale_picture(image, "Nearest", 16, 16))
    assert np.array_equal(doubled, np.asarray(image).repeat(2, axis=0).repeat(2, axis=1))


def test_pixels_are_cut_off_and_not_rounded():
    pixels = torch.full((3, 8, 8), 0.999)
    assert np.asarray(to_picture(pixels)).max() == 254
    assert from_picture(to_picture(torch.ones(3, 8, 8))).max() == 1.0
