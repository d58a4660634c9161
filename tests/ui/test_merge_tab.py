"""The Merge sub-tab without a browser: what its handlers answer, and what its pictures show."""
from __future__ import annotations

import gradio as gr
import pytest

from lib_sdtrain.merge.blocks import SD, SDXL
from lib_sdtrain.settings.merge import METHODS
from lib_sdtrain.ui.merge.figures import difference_html, method_html
from lib_sdtrain.ui.merge.handlers import CHANGING, MergeHandlers
from lib_sdtrain.ui.merge.layout import HALF, ITEMS, build_merge
from lib_sdtrain.ui.merge.u_view import u_html
from tests.api.merge_site import keyed_site


@pytest.fixture
def handlers(tmp_path, monkeypatch) -> MergeHandlers:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return MergeHandlers(keyed_site(tmp_path))


def values(**changes):
    return {"a": "a.safetensors", "b": "b.safetensors", "method": "Weighted sum", "weights_alpha": HALF,
            "weights_beta": HALF, "dtype": "as model A", "blocks": "mbw", "arithmetic": "fp32", "name": "", **changes}


def test_every_control_of_the_form_is_a_setting_with_its_own_id():
    with gr.Blocks():
        parts = build_merge(hosted=True)
    for name, component in parts.form.items():
        assert component.elem_id == f"sdtrain_merge_{name}"
        assert name in ITEMS or name == "name"
    left = set(ITEMS) - set(parts.form)
    assert left == {"alpha", "beta", "recipe", "search", "out", "threads", "dice_seed", "dice_low", "dice_high"}


@pytest.mark.parametrize("layout", [SD, SDXL])
def test_the_u_has_a_labelled_slider_and_a_number_for_every_block(layout):
    drawn = u_html(layout.names)
    for name in layout.names:
        assert drawn.count(f"data-block='{name}'") == 1
        assert f"<label for='sdm_{name}'" in drawn
        assert f"id='sdm_{name}'" in drawn
        assert f"aria-label='{name}, number'" in drawn


def test_levels_of_the_u_follow_the_picture_size():
    drawn = u_html(SDXL.names, 1024)
    assert drawn.count("128 &times; 128") == drawn.count("32 &times; 32") == 2
    assert u_html(SD.names, 512).count("8 &times; 8 ") == 2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_shown_with_its_figure_and_its_controls(handlers, name):
    title = handlers.method_title(name)
    about = handlers.about(values(method=title))
    assert about.count("class='merged'") == 12
    visible = handlers.visible(title)
    assert set(visible) == set(CHANGING)
    method = handlers.service.method(name)
    assert visible["weights_beta"] == method["uses_beta"]
    assert ("<line class='mark-c'" in about) == (method["models"] > 2)


def test_text_of_methods_is_escaped():
    method = {"formula": "<b>", "sentence": "a & b", "source": "<i>", "many": False}
    shown = method_html(method, {"a": [0.0], "result": [0.0]})
    assert "&lt;b&gt;" in shown
    assert "<i>" not in shown


def test_the_plan_tells_size_and_name(handlers):
    plan = handlers.plan(values())
    assert "data-ready='true'" in plan
    assert "a-b-weighted_sum.safetensors" in plan


def test_an_empty_form_asks_for_models_without_alarm(handlers):
    plan = handlers.plan(values(a=None, b=None))
    assert "Choose model A and B" in plan
    assert "data-control" not in plan


def test_mistakes_name_their_control(handlers):
    plan = handlers.plan(values(weights_alpha="1,2,x"))
    assert "data-control='sdtrain_merge_weights_alpha'" in plan
    plan = handlers.plan(values(b="<script>"))
    assert "<script>" not in plan


def test_sliders_and_weights_follow_the_family_of_a(handlers):
    unet, texts, note = handlers.fitted("xl.safetensors", [HALF, "rubbish"])
    assert "OUT08" in unet
    assert "OUT09" not in unet
    assert [len(text.split(",")) for text in texts] == [20, 1]
    assert "left out" in note
    assert "OUT11" in handlers.fitted("nowhere.safetensors", [HALF])[0]


def test_beta_takes_the_method_s_default_until_it_is_shaped(handlers):
    assert set(handlers.beta_for("Triple sum", HALF).split(",")) == {"0.25"}
    shaped = HALF.replace("0.5", "0.7", 1)
    assert handlers.beta_for("Triple sum", shaped) == shaped


def test_dice_show_the_seed_they_used(handlers):
    text, seed, note = handlers.roll(HALF, "", "all blocks", (0.0, 1.0), False)
    assert handlers.roll(HALF, seed, "all blocks", (0.0, 1.0), False) == (text, seed, note)
    assert seed in note
    failed, kept, note = handlers.roll(HALF, "-3", "all blocks", (0.0, 1.0), False)
    assert (failed, kept) == (None, "-3")
    assert "sdtrain_merge_dice_seed" in note


def test_presets_fill_and_refuse(handlers):
    text, note = handlers.preset("high-res_replace", "a.safetensors", "")
    assert text.startswith("0,0,1,1,0.67")
    assert note == ""
    assert len(handlers.preset("high-res_replace", "xl.safetensors", "")[0].split(",")) == 20
    failed, note = handlers.preset("nothing", "a.safetensors", "")
    assert failed is None
    assert "there is no preset" in note
    assert "Saved as preset mine" in handlers.save_preset("mine", HALF)
    assert "sdtrain_merge_preset_name" in handlers.save_preset("", HALF)


def test_the_difference_is_a_heat_map_with_bars_for_the_sliders():
    cell = {"distance": 0.5, "cosine": 0.9, "largest": 0.1, "weights": 10}
    none = {**cell, "distance": 0.0}
    document = {"blocks": {"BASE": none, "IN00": cell}, "layers": {"BASE": {"norm": none}, "IN00": {"conv": cell}}}
    shown = difference_html(document, ["norm", "conv"])
    assert "data-blocks='{&quot;BASE&quot;: 0.0, &quot;IN00&quot;: 0.5}'" in shown
    assert shown.count("--heat:100%") == 2
    document["blocks"]["IN00"] = none
    assert "equal in every block" in difference_html(document, [])


def test_drawing_needs_numbers_and_prompts(handlers):
    drawing = {"pictures_prompts": "", "pictures_negative": "", "pictures_seed": None, "pictures_steps": 0,
               "pictures_size": 0, "pictures_clip_skip": 1}
    said = handlers.draw(values(), drawing)
    assert "sdtrain_merge_pictures_seed" in said
    assert "sdtrain_merge_pictures_steps" in said
    assert "nothing to draw" in handlers.draw(values(), drawing | {"pictures_seed": 1, "pictures_steps": 2})


def test_an_earlier_merge_fills_the_controls(handlers):
    job = handlers.service.start(handlers.form(values(method="Add difference", c="a.safetensors", dtype="bf16")))
    assert job.done.wait(60)
    label = handlers.service.history.labels()[0]
    found, message = handlers.again(label)
    assert found["method"] == "Add difference"
    assert found["dtype"] == "bf16"
    assert message == ""
    assert "add_difference" in handlers.report() or "Which tensors of" in handlers.report()
    assert "sdtrain_merge_again" in handlers.again("")[1]
