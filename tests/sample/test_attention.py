"""Attention in prompts. The examples are those that AUTOMATIC1111 WebUI documents for its own parser."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.sample.attention import BREAK, parse_attention, uses_attention

PROMPTS = st.lists(st.sampled_from([*"ab ,()[]:|\\.019-\n", "BREAK"]), max_size=40).map("".join)


@pytest.mark.parametrize(("prompt", "pieces"), [
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\]", [("(literal]", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", [
        ("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
        ("sky", 1.4641), (".", 1.1),
    ]),
    ("(spaces: 1.5 )", [("spaces", 1.5)]),
    ("(less:-0.5)", [("less", -0.5)]),
    ("", [("", 1.0)]),
])
def test_documented_examples(prompt, pieces):
    found = parse_attention(prompt)
    assert [text for text, _ in found] == [text for text, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def test_break_stands_alone_and_swallows_the_space_around_it():
    assert parse_attention("a dog BREAK a cat") == [("a dog", 1.0), BREAK, ("a cat", 1.0)]
    assert parse_attention("BREAKFAST") == [("BREAKFAST", 1.0)]


def test_break_inside_of_brackets_is_weighted_and_so_a_word():
    inside = parse_attention("(a BREAK b:1.2)")[1]
    assert inside.text == "BREAK"
    assert not inside.is_break


def test_a_weight_that_is_no_number_is_text():
    assert parse_attention("(a:1.2.3)") == [("a:1.2.3", 1.1)]


@given(PROMPTS)
def test_any_text_parses_and_no_letter_is_lost(prompt):
    found = "".join(text for text, _ in parse_attention(prompt))
    assert [c for c in found if c in "ab,|"] == [c for c in prompt if c in "ab,|"]


@given(st.text(max_size=60))
def test_any_unicode_parses(prompt):
    assert parse_attention(prompt)


def test_uses_attention():
    assert uses_attention("a (b)")
    assert not uses_attention(r"a \(b\) BREAK c")
