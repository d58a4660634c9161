"""Infotexts, read and written."""
from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain.errors import UserError
from lib_sdtrain.sample.infotext import Facts, old_first_pass, parse_infotext, quote, split_infotexts, unquote
from lib_sdtrain.sample.infotext_write import write_infotext
from lib_sdtrain.sample.samplers.registry import SAMPLERS
from lib_sdtrain.sample.schedule_names import SCHEDULE_NAMES
from lib_sdtrain.settings.sample import EMPHASIS, SampleOptions, SampleRequest
from tests.sample.random_models import DATA

CASES = [json.loads(path.read_text("utf-8")) for path in sorted((DATA / "cases").glob("*.json"))]
THEIRS = [text for case in CASES for text in case["infotexts"]]
OLD = DATA.parent / "bpmodel_infotexts.txt"


@pytest.mark.parametrize("text", THEIRS)
def test_what_the_webui_wrote_is_written_again(text):
    assert write_infotext(*parse_infotext(text)) == text


def test_infotexts_of_2022_are_read():
    texts = split_infotexts(OLD.read_text("utf-8"))
    assert len(texts) == 6
    request, facts = parse_infotext(texts[0])
    assert (request.width, request.height) == (448, 704)
    assert (request.hr_resize_x, request.hr_resize_y) == (960, 1600)
    assert request.enable_hr
    assert request.hr_upscaler == "Latent"
    assert (request.sampler_name, request.steps, request.cfg_scale, request.seed) == ("Euler a", 28, 12, 4236324744)
    assert (request.clip_skip, request.ensd, request.denoising_strength) == (2, 31337, 0.7)
    assert facts.model_hash == "855959a4"
    for text in texts:
        again, _ = parse_infotext(write_infotext(*parse_infotext(text)))
        assert again.prompt == parse_infotext(text)[0].prompt


@pytest.mark.parametrize(("size", "first"), [
    ((960, 1600), (448, 704)), ((512, 512), (512, 512)), ((768, 512), (640, 448)),
])
def test_first_pass_of_old_hires_fix(size, first):
    assert old_first_pass(*size) == first


def test_a_given_old_first_pass_is_kept():
    request, _ = parse_infotext("a\nSteps: 5, Sampler: Euler, CFG scale: 7, Size: 1024x768, First pass size: 512x384, "
                                "Denoising strength: 0.6")
    assert (request.width, request.height, request.hr_resize_x, request.hr_resize_y) == (512, 384, 1024, 768)


def test_numbers_are_written_as_they_were():
    for scale in ("7", "7.0", "7.5"):
        text = f"a\nSteps: 5, Sampler: Euler, Schedule type: Automatic, CFG scale: {scale}, Seed: 1, Size: 64x64"
        assert write_infotext(*parse_infotext(text)) == text


def test_what_extensions_add_is_kept():
    text = ('a\nSteps: 5, Sampler: Euler, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 64x64, Model: "m, x", '
            'Dynamic thresholding: "a: 1, b", Version: v1.10.1')
    request, facts = parse_infotext(text)
    assert facts.extras == (("Dynamic thresholding", "a: 1, b"),)
    assert write_infotext(request, facts) == text


def test_a_version_brings_back_its_ways():
    def options(version, prompt="a [b:1.0]", sampler="DDIM"):
        return parse_infotext(f"{prompt}\nSteps: 5, Sampler: {sampler}, CFG scale: 7, Version: {version}")[0].options

    assert options("v1.5.1").use_old_scheduling
    assert options("v1.5.1").pad_cond_uncond_v0
    assert options("v1.5.1").use_downcasted_alpha_bar
    assert not options("v1.5.1", prompt="a").use_old_scheduling
    assert not options("v1.5.1", sampler="Euler").pad_cond_uncond_v0
    assert options("v1.6.0").use_downcasted_alpha_bar
    assert not options("v1.6.0").use_old_scheduling
    assert not options("v1.7.0-225-gabcdef").use_downcasted_alpha_bar
    assert options("v1.10.1") == SampleOptions()


def test_mistakes_name_the_field():
    with pytest.raises(UserError, match="infotext, Steps"):
        parse_infotext("a\nSteps: many, Sampler: Euler, CFG scale: 7")
    with pytest.raises(UserError, match="no sampler"):
        parse_infotext("a\nSteps: 5, Sampler: Foo, CFG scale: 7")


def test_a_prompt_alone_is_an_infotext():
    request, _ = parse_infotext("a cat: black, white\nNegative prompt: dog\nbird")
    assert (request.prompt, request.negative_prompt) == ("a cat: black, white", "dog\nbird")
    assert not request.enable_hr


@given(st.text(max_size=40))
def test_quoting_is_undone(value):
    assert unquote(quote(value)) == value or not any(mark in value for mark in ",:\n")


LINES = st.text(alphabet="ab (),.[]:1|", max_size=30).map(str.strip)
PROMPTS = st.lists(LINES, max_size=3).map("\n".join).map(str.strip)


@st.composite
def requests(draw):
    hires = draw(st.booleans())
    resized = draw(st.booleans())
    options = SampleOptions(
        eta_ancestral=draw(st.sampled_from([1.0, 0.5])), rho=draw(st.sampled_from([0.0, 5.0])),
        sgm_noise_multiplier=draw(st.booleans()), s_churn=draw(st.sampled_from([0.0, 3.5])),
    )
    return SampleRequest(
        prompt=draw(PROMPTS), negative_prompt=draw(PROMPTS), steps=draw(st.integers(1, 150)),
        sampler_name=draw(st.sampled_from([sampler.name for sampler in SAMPLERS])),
        scheduler=draw(st.sampled_from([name.label for name in SCHEDULE_NAMES])),
        cfg_scale=draw(st.sampled_from([7, 7.0, 1.5])), seed=draw(st.integers(0, 2**32)), options=options,
        width=draw(st.integers(8, 2000)), height=draw(st.integers(8, 2000)), clip_skip=draw(st.integers(1, 12)),
        randn_source=draw(st.sampled_from(["GPU", "CPU", "NV"])), ensd=draw(st.sampled_from([0, 31337])),
        emphasis=draw(st.sampled_from(EMPHASIS)), enable_hr=hires,
        denoising_strength=draw(st.sampled_from([0.5, 1])) if hires else 0.75,
        hr_resize_x=draw(st.integers(8, 2000)) if hires and resized else 0,
        hr_scale=draw(st.sampled_from([2, 1.5])), hr_second_pass_steps=draw(st.sampled_from([0, 9])),
        hr_prompt=draw(PROMPTS) if hires else "", hr_sampler_name=draw(st.sampled_from([None, "DPM++ 2M", "DDIM"])),
    )


@given(requests())
@settings(max_examples=200, deadline=None)
def test_writing_reading_and_writing_changes_nothing(request):
    text = write_infotext(request, Facts(model_hash="0123456789", model="m", version="v1.10.1"))
    assert write_infotext(*parse_infotext(text)) == text


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused_with_a_reason(text):
    with contextlib.suppress(UserError):
        request, _ = parse_infotext(text)
        assert request.sampler_name


@pytest.mark.parametrize(("labels", "second"), [
    ("Sampler: DPM++ 2M Karras", (None, None)),
    ("Sampler: Euler, Hires sampler: DPM++ 2M Karras", ("DPM++ 2M", "Karras")),
    ("Sampler: DPM++ 2M Karras, Hires sampler: Euler a", ("Euler a", "Automatic")),
    ("Sampler: Euler, Schedule type: Karras, Hires sampler: Heun", ("Heun", None)),
    ("Sampler: Euler, Schedule type: Karras, Hires schedule type: Beta", (None, "Beta")),
    ("Sampler: Euler, Hires sampler: Use same sampler, Hires schedule type: Use same scheduler", (None, None)),
])
def test_the_second_sampler_may_have_an_old_name(labels, second):
    request, _ = parse_infotext(f"a\nSteps: 5, {labels}, CFG scale: 7, Size: 64x64, Denoising strength: 0.5")
    assert (request.hr_sampler_name, request.hr_scheduler) == second


def test_a_release_candidate_comes_before_its_release():
    def old(version):
        return parse_infotext(f"a [b:1]\nSteps: 5, Sampler: Euler, CFG scale: 7, Version: {version}")[0].options

    assert old("v1.6.0-RC-11-g7f1f9a1").use_old_scheduling
    assert not old("v1.6.0-2-g4afaaf8a").use_old_scheduling
