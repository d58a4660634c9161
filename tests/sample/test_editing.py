"""Prompt editing. The examples are those that AUTOMATIC1111 WebUI documents for its own parser."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.sample.editing import Steps, edited

PROMPTS = st.text(alphabet=st.sampled_from(list("ab ,()[]:|\\.0192\n")), max_size=60)
TEN = Steps(10)


@pytest.mark.parametrize(("prompt", "intervals"), [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (10, "a b")]),
    ("a [b: 3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ("[cat::4]", [(4, "cat"), (10, "")]),
    ("[a:b:0.0]", [(10, "b")]),
    ("[a:b:99]", [(10, "a")]),
    ("(a:b:c) [x:2]", [(2, "(a:b:c) "), (10, "(a:b:c) x")]),
    ("[a:b", [(10, "[a:b")]),
    ("a | b [c:3]", [(10, "a | b [c:3]")]),
    ("a [c:3] \\", [(10, "a [c:3] \\")]),
    (r"\[a:b:3\]", [(10, r"\[a:b:3\]")]),
])
def test_documented_examples(prompt, intervals):
    assert edited(prompt, TEN) == intervals


@pytest.mark.parametrize(("prompt", "turns"), [
    ("[a|(b:1.1)]", ["a", "(b:1.1)"]),
    ("[fe|]male", ["female", "male"]),
    ("[fe|||]male", ["female", "male", "male", "male"]),
])
def test_alternation_takes_turns(prompt, turns):
    assert edited(prompt, TEN) == [(i + 1, turns[i % len(turns)]) for i in range(10)]


def test_a_hires_pass_counts_on():
    hires = Steps(10, 10)
    assert edited("a [b:.5] c", hires) == [(10, "a b c")]
    assert edited("a [b:1.5] c", hires) == [(5, "a  c"), (10, "a b c")]
    assert edited("a [b:13] c", hires) == [(3, "a  c"), (10, "a b c")]


def test_old_timelines_read_small_numbers_as_fractions():
    assert edited("a [b:1.0] c", Steps(10, old=True)) == [(1, "a  c"), (10, "a b c")]
    assert edited("a [b:1.0] c", TEN) == [(10, "a  c")]
    assert edited("a [b:.5] c", Steps(10, 20, old=True)) == [(5, "a  c"), (10, "a b c")]


@given(PROMPTS, st.integers(1, 30))
def test_any_text_is_covered_to_the_last_step_in_order(prompt, steps):
    found = edited(prompt, Steps(steps))
    ends = [interval.end for interval in found]
    assert ends == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == steps


@given(st.text(alphabet="ab (),.[]", max_size=60))
def test_without_colons_and_bars_the_prompt_is_unchanged(prompt):
    assert edited(prompt, TEN) == [(10, prompt)]


def test_deep_nesting_does_not_overflow():
    prompt = "[" * 3000 + "a" + ":2]" * 3000
    assert edited(prompt, TEN) == [(2, ""), (10, "a")]
    assert edited("(" * 5000 + "a" + ")" * 5000, TEN)[0].text.count("(") == 5000
