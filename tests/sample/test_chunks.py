"""Chunks of 75 tokens."""
from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.sample.chunks import cut


@dataclass
class WordTokenizer:
    """One token a word or comma; a comma is 1, words count from 10."""

    bos_id: int = 1000
    eos_id: int = 1001
    comma_id: int = 1

    def encode(self, text):
        words = text.replace(",", " , ").split()
        return [1 if word == "," else 10 + len(word) for word in words]


TOKENIZER = WordTokenizer()


def ids(chunk):
    return chunk.ids[1 : chunk.ids.index(1001)]


def test_a_short_prompt_is_one_framed_chunk():
    (chunk,) = cut("a bb", TOKENIZER)
    assert chunk.ids == [1000, 11, 12, *[1001] * 74]
    assert chunk.weights == [1.0] * 77


def test_an_empty_prompt_is_one_empty_chunk():
    (chunk,) = cut("", TOKENIZER)
    assert chunk.ids == [1000, *[1001] * 76]


def test_exactly_75_tokens_fit():
    assert len(cut("a " * 75, TOKENIZER)) == 1
    assert [len(ids(chunk)) for chunk in cut("a " * 76, TOKENIZER)] == [75, 1]


def test_text_after_a_near_comma_moves_to_the_next_chunk():
    prompt = "a " * 60 + ", " + "bb " * 20
    assert [len(ids(chunk)) for chunk in cut(prompt, TOKENIZER)] == [61, 20]
    assert [len(ids(chunk)) for chunk in cut(prompt, TOKENIZER, backtrack=0)] == [75, 6]
    assert [len(ids(chunk)) for chunk in cut(prompt, TOKENIZER, backtrack=14)] == [75, 6]
    assert [len(ids(chunk)) for chunk in cut(prompt, TOKENIZER, backtrack=15)] == [61, 20]


def test_weights_go_with_their_tokens():
    chunks = cut("a " * 70 + ", (bb bb bb bb bb bb:1.3)", TOKENIZER)
    assert [weight for chunk in chunks for weight in chunk.weights if weight != 1.0] == [1.3] * 6
    assert chunks[1].weights[1:7] == [1.3] * 6


def test_break_begins_a_chunk():
    assert [ids(chunk) for chunk in cut("a BREAK bb BREAK BREAK a", TOKENIZER)] == [[11], [12], [], [11]]


def test_with_emphasis_none_brackets_are_words():
    (chunk,) = cut("(a:1.3) BREAK", TOKENIZER, emphasis="None")
    assert ids(chunk) == [17, 15]
    assert set(chunk.weights) == {1.0}


@dataclass
class Embedding:
    vectors: int
    name: str = "e"


def test_an_embedding_takes_its_place_whole():
    def find(tokens, position):
        return (Embedding(8), 1) if tokens[position] == 15 else (None, 0)

    first, second = cut("a " * 70 + "eeeee (eeeee:1.5)", TOKENIZER, find=find)
    assert len(ids(first)) == 70
    assert [insert.offset for insert in second.inserts] == [0, 8]
    assert second.weights[9:17] == [1.5] * 8


@given(st.lists(st.sampled_from(["a", "bb", ",", "ccc"]), max_size=300), st.integers(0, 74))
def test_no_token_is_lost_or_moved_past_another(words, backtrack):
    prompt = " ".join(words)
    found = [token for chunk in cut(prompt, TOKENIZER, backtrack=backtrack) for token in ids(chunk)]
    assert found == TOKENIZER.encode(prompt)
