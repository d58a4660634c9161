"""Pictures from requests, on a tiny random model."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_sdtrain.errors import Cancelled, JobFailed, UserError
from lib_sdtrain.events import CancelToken
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.samplers.registry import SAMPLERS
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest

SMALL = {"width": 64, "height": 64, "steps": 4, "prompt": "a dog", "negative_prompt": "a [cat|bird]", "seed": 5}


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32)


def latents(model, **fields):
    return torch.stack([picture.latents for picture in generate(model, SampleRequest(**{**SMALL, **fields}))])


@pytest.mark.parametrize("sampler", [s.name for s in SAMPLERS if s.name != "DPM adaptive"])
def test_a_batch_is_its_pictures_one_by_one(model, sampler):
    together = latents(model, sampler_name=sampler, batch_size=3, ensd=3)
    alone = torch.cat([latents(model, sampler_name=sampler, seed=5 + i, ensd=3) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4 * float(alone.std()))


def test_batches_one_after_another_are_one_batch(model):
    one = latents(model, batch_size=3)
    assert torch.allclose(latents(model, n_iter=3), one, atol=1e-4 * float(one.std()))


def test_hires_batches_are_their_pictures(model):
    fields = {"enable_hr": True, "hr_scale": 1.5, "subseed": 9, "subseed_strength": 0.3}
    together = latents(model, batch_size=2, **fields)
    second = latents(model, **{**fields, "subseed": 10})
    assert torch.allclose(together[1], second[0], atol=1e-4 * float(second.std()))


def test_the_same_request_gives_the_same_bytes(model):
    assert torch.equal(latents(model), latents(model))


@pytest.mark.parametrize("change", [
    {"seed": 6}, {"prompt": "a cat"}, {"negative_prompt": ""}, {"cfg_scale": 5.0}, {"clip_skip": 2},
    {"sampler_name": "Heun"}, {"scheduler": "Karras"}, {"steps": 5}, {"prompt": "a (dog:1.3)"}, {"tiling": True},
    {"subseed": 3, "subseed_strength": 0.5}, {"options": SampleOptions(sgm_noise_multiplier=True)},
])
def test_what_is_asked_matters(model, change):
    assert not torch.allclose(latents(model), latents(model, **change), atol=1e-3)


def test_the_model_is_as_before_also_in_the_middle_of_training(model):
    model.unet.train()
    model.unet.conv_in.eval()
    weights = model.unet.conv_out.weight.clone()
    state = torch.get_rng_state()
    assert torch.equal(latents(model, tiling=True), latents(model, tiling=True))
    assert model.unet.training
    assert model.unet.mid_block.training
    assert not model.unet.conv_in.training
    assert not model.vae.training
    assert model.unet.conv_in.padding_mode == "zeros"
    assert torch.equal(weights, model.unet.conv_out.weight)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.unet.modules())
    model.unet.eval()


def test_prompts_are_encoded_once_for_a_model_that_stays(model, monkeypatch):
    from lib_sdtrain.sample import text_encoding

    calls = []
    encode = text_encoding.encode
    monkeypatch.setattr(text_encoding, "encode", lambda *given: calls.append(1) or encode(*given))
    around = Surroundings(encodings=text_encoding.EncodingCache())
    request = SampleRequest(**{**SMALL, "enable_hr": True, "n_iter": 2})
    first = [picture.latents for picture in generate(model, request, surroundings=around)]
    once = len(calls)
    again = [picture.latents for picture in generate(model, request, surroundings=around)]
    assert len(calls) == once
    assert torch.equal(torch.stack(first), torch.stack(again))
    list(generate(model, SampleRequest(**{**SMALL, "clip_skip": 2}), surroundings=around))
    assert len(calls) > once


def test_no_gradients_are_kept(model):
    model.unet.requires_grad_(True)
    assert not latents(model).requires_grad
    assert all(parameter.grad is None for parameter in model.unet.parameters())
    model.unet.requires_grad_(False)


def test_stopping_takes_one_evaluation(model):
    token, done = CancelToken(), []

    def report(step, total):
        done.append((step, total))
        if step == 2:
            token.stop_now()

    with pytest.raises(Cancelled):
        list(generate(model, SampleRequest(**{**SMALL, "steps": 50}), token, report))
    assert done == [(1, 50), (2, 50)]


def test_pictures_come_with_their_own_seed_and_infotext(model):
    pictures = list(generate(model, SampleRequest(**{**SMALL, "batch_size": 2, "n_iter": 2})))
    assert [picture.seed for picture in pictures] == [5, 6, 7, 8]
    assert [f"Seed: {picture.seed}," in picture.infotext for picture in pictures] == [True] * 4
    assert pictures[0].image.size == (64, 64)
    assert pictures[0].latents.shape == (4, 8, 8)
    assert pictures[0].latents.dtype == torch.float32


def test_a_random_seed_is_told_and_gives_the_picture_again(model):
    (picture,) = generate(model, SampleRequest(**{**SMALL, "seed": -1}))
    (again,) = generate(model, SampleRequest(**{**SMALL, "seed": picture.seed}))
    assert np.array_equal(np.asarray(picture.image), np.asarray(again.image))


def test_sizes_need_not_be_multiples_of_64(model):
    (picture,) = generate(model, SampleRequest(**{**SMALL, "width": 72, "height": 104, "steps": 2}))
    assert picture.image.size == (72, 104)


def test_all_mistakes_of_a_request_are_told_at_once(model):
    request = SampleRequest(sampler_name="Foo", scheduler="Bar", enable_hr=True, hr_upscaler="Baz")
    with pytest.raises(UserError) as caught:
        next(generate(model, request))
    assert [problem.where for problem in caught.value.problems] == ["sampler_name", "scheduler", "hr_upscaler"]


def test_half_precision_that_overflows_is_decoded_again(model):
    notices = []
    broken = model.vae.decode

    def overflow(latents_, *args, **keywords):
        found = broken(latents_, *args, **keywords)
        if latents_.dtype == torch.bfloat16:
            found.sample = torch.full_like(found.sample, float("nan"))
        return found

    model.vae.to(torch.bfloat16)
    model.vae.decode = overflow
    (picture,) = generate(model, SampleRequest(**SMALL), surroundings=Surroundings(tell=notices.append))
    del model.vae.decode
    assert next(model.vae.parameters()).dtype == torch.float32
    assert not next(model.vae.parameters()).is_inference()
    assert np.asarray(picture.image).std() > 0
    assert len(notices) == 1
    assert "float32" in notices[0].text


def test_tiled_decoding_shows_the_same_picture(model):
    request = SampleRequest(**{**SMALL, "width": 640, "height": 64, "steps": 1})
    (whole,) = generate(model, request)
    (tiled,) = generate(model, request, surroundings=Surroundings(vae_tiling=True))
    one, other = (np.asarray(picture.image, dtype=float).ravel() for picture in (whole, tiled))
    assert 0.5 < np.corrcoef(one, other)[0, 1] < 1  # normalised tile by tile, which matters most with random weights
    assert not model.vae.use_tiling


def test_comments_are_not_drawn_and_not_written(model):
    commented = next(generate(model, SampleRequest(**{**SMALL, "prompt": "a dog# in red"})))
    assert torch.equal(commented.latents, latents(model)[0])
    assert "in red" not in commented.infotext


def test_a_model_that_gives_no_numbers_says_so(model):
    weight = model.unet.conv_out.bias.data
    before = weight.clone()
    weight.fill_(float("nan"))
    try:
        with pytest.raises(JobFailed, match="UNet gave no numbers"):
            latents(model)
    finally:
        weight.copy_(before)


def test_a_vae_that_never_gives_numbers_says_so(model):
    weight = model.vae.decoder.conv_out.bias.data
    before = weight.clone()
    weight.fill_(float("nan"))
    try:
        with pytest.raises(JobFailed, match="VAE gave no numbers"):
            latents(model)
    finally:
        weight.copy_(before)
