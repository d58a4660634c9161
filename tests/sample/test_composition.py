"""AND, and the marks of networks."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.sample.composition import composed, networks, uncommented, without_comments
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest


def test_and_splits_and_weighs():
    assert composed("a cat :1.2 AND a dog :-0.5 AND grass") == [(("a cat"), 1.2), (" a dog", -0.5), (" grass", 1.0)]


def test_and_is_a_word_of_its_own():
    assert composed("SAND ANDES and") == [("SAND ANDES and", 1.0)]


def test_a_weight_in_brackets_is_attention_and_no_side_weight():
    assert composed("(a:1.2)") == [("(a:1.2)", 1.0)]


def test_marks_are_taken_out_in_order():
    prompt, found = networks("a <lora:one:0.5> b <lora:two:te=0.3:unet=1>")
    assert prompt == "a  b "
    assert [(n.kind, n.positional, n.named) for n in found] == [
        ("lora", ("one", "0.5"), {}), ("lora", ("two",), {"te": "0.3", "unet": "1"}),
    ]


@given(st.text(max_size=60))
def test_any_text_composes(prompt):
    parts = composed(prompt)
    assert len(parts) >= 1
    networks(prompt)


def test_comments_hide_the_rest_of_their_line():
    assert uncommented("a cat # black\nsitting") == "a cat \nsitting"
    assert uncommented("# a note\na cat") == "\na cat"
    assert uncommented("a cat, #1") == "a cat, \n"


def test_comments_can_be_left_in():
    request = SampleRequest(prompt="a #b", hr_prompt="c # d", options=SampleOptions(enable_prompt_comments=False))
    assert without_comments(request) is request
    assert without_comments(SampleRequest(prompt="a #b", hr_prompt="c #d")).hr_prompt == "c \n"
