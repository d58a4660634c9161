"""Every declared setting has a control, and a shown value means what it shows."""
from __future__ import annotations

import json

import gradio as gr
import pytest

from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.parse import parse_value
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.ui.controls import (
    element_id,
    label_of,
    make_control,
    number_text,
    placeholder,
    raw,
    shown,
    split_requests,
)
from lib_sdtrain.ui.train.form import default_values, form_items

ITEMS = form_items()


def item(path: str):
    return dict(ITEMS)[path]


def test_every_setting_has_exactly_one_control():
    paths = [path for path, _ in ITEMS]
    wanted = [i.path for i in declared(RunSettings) if i.path != "data.concepts"]
    wanted += [f"data.concepts.0.{part.path}" for part in declared(Concept)]
    assert sorted(paths) == sorted(wanted)
    assert len({element_id(path) for path in paths}) == len(paths)


@pytest.mark.parametrize(("path", "declaration"), ITEMS, ids=[path for path, _ in ITEMS])
def test_a_default_survives_its_control(path, declaration):
    back = raw(declaration, shown(declaration, declaration.default))
    assert parse_value(declaration, back) == declaration.default


@pytest.mark.parametrize(("path", "declaration"), ITEMS, ids=[path for path, _ in ITEMS])
def test_every_control_says_what_it_is_for(path, declaration):
    with gr.Blocks():
        component = make_control(path, declaration, shown(declaration, declaration.default)).component
    assert component.label.startswith(declaration.meta.label)
    assert component.info == declaration.meta.help
    assert component.elem_id == "sdtrain_train_" + path.replace(".", "_")


@pytest.mark.parametrize(("path", "value"), [
    ("train.length", Length(30, "epochs")), ("train.learning_rate", 2.5e-7), ("loss.min_snr_gamma", 5.0),
    ("loss.min_snr_gamma", None), ("train.optimizer_args", {"betas": [0.9, 0.99]}), ("save.name", "dog"),
    ("train.batch_size", 4), ("data.flip_p", 0.5), ("train.gradient_checkpointing", True), ("preview.every", None),
    ("preview.prompts", ("a dog", "a cat, sitting")), ("model.clip_skip", 2),
    ("save.also", ({"suffix": "_ema", "dtype": "fp32", "ema": "keep"}, {"suffix": "_no_vae", "vae": False})),
    ("stages", ({"data.resolution": 768, "train.length": "10 epochs"},)), ("validation.count", 2048),
])  # fmt: skip
def test_values_survive_their_control(path, value):
    assert parse_value(item(path), raw(item(path), shown(item(path), value))) == value


@pytest.mark.parametrize("path", ["save.also", "stages"])
def test_a_list_of_mappings_shows_what_an_entry_looks_like(path):
    words, _, example = placeholder(item(path)).partition(": ")
    (entry,) = raw(item(path), example)
    assert words == "one a line"
    assert isinstance(entry, dict)


def test_infotexts_and_requests_survive_their_control():
    infotext = "a dog\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
    values = (infotext, {"prompt": "a cat", "steps": 5}, "plain")
    back = split_requests(shown(item("preview.prompts"), values))
    assert back == list(values)


def test_one_prompt_of_several_lines_stays_one():
    prompt = "a cat\nNegative prompt: ugly"
    assert split_requests(shown(item("preview.prompts"), (prompt,))) == [prompt]


def test_one_infotext_alone_is_not_torn_into_lines():
    infotext = "a dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
    assert split_requests(infotext) == [infotext]


def test_broken_json_is_left_for_the_settings_to_judge():
    assert split_requests("{not json") == ["{not json"]
    assert raw(item("train.optimizer_args"), "{oops") == "{oops"


@pytest.mark.parametrize(("value", "text"), [(1e-6, "1e-6"), (0.5, "0.5"), (2.5e-7, "2.5e-7"), (1e20, "1e20"),
                                           (1.23456789e-5, "1.23456789e-5"), (0.1234567, "0.1234567")])
def test_numbers_are_written_as_people_write_them(value, text):
    assert number_text(value) == text
    assert float(text) == value


def test_what_the_form_shows_is_plain_data():
    json.dumps(default_values())


def test_a_label_has_its_unit_once():
    assert label_of(item("data.resolution")) == "Resolution (pixels)"
    assert label_of(item("data.concepts.0.num_class_images")) == "Class pictures wanted"
