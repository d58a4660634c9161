"""Previews are asked for in any form that people have at hand; what they leave out is the run's own."""
import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.preview_requests import preview_requests

INFOTEXT = "a cat\nNegative prompt: bad\nSteps: 7, Sampler: DDIM, CFG scale: 4, Seed: 99, Size: 96x64, Clip skip: 3"


def requests(*prompts):
    values = {"preview.prompts": list(prompts), "model.clip_skip": 2, "train.seed": 10}
    return preview_requests(resolve(RunSettings, [Layer("test", values)]).settings, (128, 192))


def test_a_plain_prompt_takes_size_clip_skip_and_a_seed_of_its_own():
    first, second = requests("a dog, sitting", "a cat")
    assert (first.prompt, first.width, first.height, first.clip_skip, first.seed) == ("a dog, sitting", 128, 192, 2, 10)
    assert second.seed == 11


def test_an_infotext_is_taken_at_its_word():
    (request,) = requests(INFOTEXT)
    assert (request.steps, request.sampler_name, request.seed, request.clip_skip) == (7, "DDIM", 99, 3)
    assert (request.width, request.height, request.negative_prompt) == (96, 64, "bad")


def test_a_request_of_the_api_keeps_what_it_names():
    (request,) = requests(
        {"prompt": "x", "steps": 3, "override_settings": {"CLIP_stop_at_last_layers": 4}, "width": 64}
    )
    assert (request.steps, request.clip_skip, request.width, request.height, request.seed) == (3, 4, 64, 192, 10)


def test_every_wrong_entry_is_named():
    with pytest.raises(UserError) as caught:
        requests("fine", {"prompt": "x", "stepps": 3}, {"prompt": "y", "steps": 0})
    text = str(caught.value)
    assert "preview.prompts.1.stepps: unknown field" in text
    assert "preview.prompts.2" in text
