"""Bytes of strangers break nothing: the corpus, and changes of it that hypothesis thinks of.

`python -m tests.fuzz TARGET --minutes 10` goes on with atheris, guided by coverage; what it finds joins the corpus.
"""
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds_of
from tests.fuzz.targets import TARGETS, survive

EXAMPLES = 60


@st.composite
def changed(draw, seeds: list[bytes]) -> bytes:
    """A seed with a few pieces cut out, put in twice, or replaced."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        piece = draw(st.one_of(st.binary(max_size=8), st.just(content[start:end] * 2)))
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_was_found_before_and_what_is_usual(name):
    for seed in seeds_of(name):
        survive(name, seed)


@pytest.mark.parametrize("name", list(TARGETS))
def test_changes_of_it(name):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changed(seeds_of(name)))
    def run(content: bytes) -> None:
        survive(name, content)

    run()


def test_every_file_of_the_corpus_belongs_to_a_target():
    assert {path.name for path in (Path(__file__).parent / "corpus").iterdir()} <= set(TARGETS)
