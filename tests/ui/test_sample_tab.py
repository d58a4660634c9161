"""What the Sample sub-tab's controls hold, mean and show."""
from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_sdtrain.api.sampling import SampleOutlook, SampleService
from lib_sdtrain.api.sampling_form import OTHER, basic_names, form_items
from lib_sdtrain.errors import Problem
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.jobs import JobRunner
from lib_sdtrain.sample.hires import UPSCALERS as KNOWN
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.ui.sample import layout
from lib_sdtrain.ui.sample.tab import SampleTab
from lib_sdtrain.ui.sample.views import notes_html, plan_html

INFOTEXT = ("a <b>cat</b>\nNegative prompt: dog\n"
            "Steps: 9, Sampler: Heun, Schedule type: Karras, CFG scale: 6.5, Seed: 3, "
            "Size: 64x128, Clip skip: 2, Denoising strength: 0.6, Hires upscale: 2, Hires upscaler: Lanczos")


@pytest.fixture
def tab(tmp_path):
    host = StandaloneHost(tmp_path)
    with gr.Blocks():
        return SampleTab(SampleService(host, JobRunner(host)))


def held(tab, **changes):
    """What the controls hold at first, as a handler gets it."""
    first = {component: component.value for component in tab.names}
    return first | {tab.parts.form[name]: value for name, value in changes.items()}


def test_every_setting_of_a_request_has_a_control_or_a_reason_for_none(tab):
    assert set(form_items()) - set(tab.parts.form) == {"firstphase_width", "firstphase_height"}
    assert set(basic_names()) <= set(tab.parts.form)
    for name, component in tab.parts.form.items():
        assert component.elem_id == f"sdtrain_sample_{name}"


def test_the_upscalers_are_the_engines():
    assert layout.UPSCALERS == KNOWN


def test_the_controls_begin_as_a_request_that_can_be_drawn(tab):
    data = held(tab, checkpoint="toybox")
    assert tab._form(data)["hr_sampler_name"] is None
    assert "data-ready='true'" in tab._plan(data)


def test_an_infotext_goes_into_the_controls(tab):
    answer = tab._read(held(tab, checkpoint="toybox"), INFOTEXT)
    form, more = tab.parts.form, tab.parts.more
    values = {name: answer[component]["value"] for name, component in form.items() if component in answer}
    assert (values["sampler_name"], values["scheduler"]) == ("Heun", "Karras")
    assert (values["steps"], values["height"]) == (9, 128)
    assert (values["hr_upscaler"], values["enable_hr"], values["hr_sampler_name"]) == ("Lanczos", True, layout.AS_FIRST)
    assert values[OTHER] == ""
    assert answer[more["hires"]]["visible"]
    assert "64 x 128, then 128 x 256" in answer[more["plan"]]
    assert "everything in it" in answer[more["message"]]


def test_a_wrong_infotext_is_told_and_changes_nothing(tab):
    answer = tab._read(held(tab), "a\nSteps: 5, Sampler: <i>Foo</i>, CFG scale: 6")
    assert list(answer) == [tab.parts.more["message"]]
    assert "&lt;i&gt;Foo" in answer[tab.parts.more["message"]]


def test_a_picture_is_read_like_its_infotext(tab, tmp_path):
    info = PngInfo()
    info.add_text("parameters", INFOTEXT)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert tab.service.read_picture(Path(tmp_path / "a.png")) == INFOTEXT


def test_words_of_users_are_escaped():
    assert "<script>" not in notes_html(["<script>"])
    problem = Problem("<script> is wrong", "prompt", "<b>")
    assert "<script>" not in plan_html(SampleOutlook(problems=(problem,)))
    assert "data-control='sdtrain_sample_prompt'" in plan_html(SampleOutlook(problems=(problem,)))


def test_the_plan_tells_what_would_happen():
    assert "<b>1</b> picture ·" in plan_html(SampleOutlook("pictures", 1, "64 x 64", 20))
    assert "a <b>grid</b> of 6 pictures" in plan_html(SampleOutlook("grid", 6, "64 x 64", 20))
    assert "from the same seed" in plan_html(SampleOutlook("compare", 2, "64 x 64", 20))


def test_defaults_of_the_boxes_are_the_requests():
    plain = SampleRequest()
    assert all(hasattr(plain, name) for name in form_items())
