"""Guidance and prediction types."""
from __future__ import annotations

import pytest
import torch

from lib_sdtrain.model.schedule import alphas_cumprod
from lib_sdtrain.sample.conditioning import Cond, Conds, PromptReader, Timeline, stacked
from lib_sdtrain.sample.denoiser import (
    Guidance,
    GuidedModel,
    denoised_from_noise,
    denoised_from_velocity,
    noise_from_velocity,
)
from lib_sdtrain.sample.editing import Steps
from lib_sdtrain.sample.levels import NoiseLevels

LEVELS = NoiseLevels(alphas_cumprod())


def cond(value, tokens=77):
    return Cond(torch.full((1, tokens, 2), float(value)))


def line(*values, ends=None, tokens=77):
    return Timeline(tuple(ends or [100] * len(values)), tuple(cond(value, tokens) for value in values))


def mean_of_context(calls):
    def predict(x, level, given):
        calls.append((len(x), given.tokens))
        return given.context.mean((1, 2)).reshape(-1, 1, 1, 1).expand(x.shape).clone()
    return predict


def guided(prompt, negative, guidance=None, steps=4, calls=None):
    conds = Conds(prompt, negative, torch.zeros(1, 77, 2))
    return GuidedModel(mean_of_context([] if calls is None else calls), conds, guidance or Guidance(), steps,
                       lambda step: None)


X = torch.zeros(3, 4, 2, 2)


def test_guidance_goes_from_the_negative_past_the_prompt():
    assert torch.all(guided(((1.0, line(2)),), line(1))(X, 5.0) == 1 + 7 * (2 - 1))


def test_sides_of_and_add_up_by_their_weights():
    model = guided(((1.0, line(2)), (-0.5, line(4))), line(1), Guidance(scale=2))
    assert torch.allclose(model(X, 5.0), torch.full_like(X, 1 + 2 * 1.0 - 2 * 0.5 * 3))


def test_equal_lengths_share_one_pass_of_the_unet():
    calls = []
    guided(((1.0, line(2)), (1.0, line(3))), line(1), calls=calls)(X, 5.0)
    assert calls == [(9, 77)]


def test_unequal_lengths_do_not_mix():
    calls = []
    found = guided(((1.0, line(2, tokens=154)),), line(1), calls=calls)(X, 5.0)
    assert sorted(calls) == [(3, 77), (3, 154)]
    assert torch.all(found == 8)


def test_padding_fills_with_empty_chunks():
    calls = []
    model = guided(((1.0, line(2, tokens=154)),), line(1), Guidance(pad=True), calls=calls)
    model(X, 5.0)
    assert calls == [(6, 154)]
    assert model.happened == {"Pad conds"}


@pytest.mark.parametrize("tokens", [77, 231])
def test_old_padding_stretches_or_cuts_the_negative_prompt(tokens):
    calls = []
    model = guided(((1.0, line(2, tokens=154)),), line(1, tokens=tokens), Guidance(pad_v0=True), calls=calls)
    assert torch.all(model(X, 5.0) == 8)
    assert calls == [(6, 154)]


def test_the_negative_prompt_rests_at_low_levels_every_other_step():
    calls = []
    model = guided(((1.0, line(2)),), line(1), Guidance(s_min_uncond=3.0), calls=calls)
    for level in (5.0, 2.0, 1.0, 0.5):
        model(X, level)
    assert [count for count, _ in calls] == [6, 3, 6, 3]
    assert "NGMS" in model.happened


def test_the_negative_prompt_rests_in_the_beginning():
    calls = []
    model = guided(((1.0, line(2)),), line(1), Guidance(skip_early=0.3), steps=10, calls=calls)
    for _ in range(5):
        model(X, 5.0)
    assert [count for count, _ in calls] == [3, 3, 3, 3, 6]


def test_prompts_change_with_the_step():
    model = guided(((1.0, line(2, 3, ends=(1, 4))),), line(1), Guidance(scale=1))
    assert [float(model(X, 5.0).mean()) for _ in range(6)] == [2, 2, 3, 3, 3, 2]


def test_progress_is_told():
    seen = []
    model = guided(((1.0, line(2)),), line(1))
    model.after = seen.append
    model(X, 1.0)
    model(X, 1.0)
    assert seen == [1, 2]


def test_stacking_keeps_each_conditioning_together():
    both = stacked([cond(1), cond(2)], 2)
    assert both.context[:, 0, 0].tolist() == [1, 1, 2, 2]


def test_each_text_is_encoded_once_and_together():
    seen = []

    def encode(texts, negative):
        seen.append((tuple(texts), negative))
        return [cond(len(text)) for text in texts]

    conds = PromptReader(encode, Steps(10)).conds("a [b:c:4] AND d :0.5 AND d", "n")
    assert seen == [(("n",), True), (("a b", "a c"), False), ((" d",), False)]
    assert [weight for weight, _ in conds.prompt] == [1.0, 0.5, 1.0]


@pytest.mark.parametrize("sigma", [14.0, 1.3, 0.05])
def test_all_prediction_types_find_the_same_picture(sigma):
    """A model that knows x0 and the noise exactly says so in eps and in v."""
    x0, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    a = 1 / (1 + sigma**2)

    def eps(x, t, given):
        return noise

    def v(x, t, given):
        return a**0.5 * noise - (1 - a) ** 0.5 * x0

    x = x0 + sigma * noise
    assert torch.allclose(denoised_from_noise(eps, LEVELS)(x, sigma, None), x0, atol=1e-4)
    assert torch.allclose(denoised_from_velocity(v, LEVELS)(x, sigma, None), x0, atol=1e-4)


def test_noise_from_velocity_is_exact_at_whole_timesteps():
    table, t = alphas_cumprod(), 500
    a = table[t]
    x0, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    predict = noise_from_velocity(lambda x, t, given: a.sqrt() * noise - (1 - a).sqrt() * x0, table)
    assert torch.allclose(predict(a.sqrt() * x0 + (1 - a).sqrt() * noise, 500.0, None), noise, atol=1e-5)


def test_the_unet_is_asked_at_the_levels_timestep():
    asked = []

    def eps(x, t, given):
        asked.append((float(t[0]), float(x.std())))
        return torch.zeros_like(x)

    x = torch.randn(1, 4, 64, 64) * LEVELS.sigma_max
    denoised_from_noise(eps, LEVELS)(x, LEVELS.sigma_max, None)
    assert asked[0][0] == pytest.approx(999, abs=0.01)
    assert asked[0][1] == pytest.approx(1.0, abs=0.05)
