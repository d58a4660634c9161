"""Token ids against transformers' CLIPTokenizer and known ids of CLIP's vocabulary."""
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain.model.tokenizer import EOS_ID, MERGE_COUNT, Tokenizer, read_vocabulary, vocabulary_path

EXAMPLES = [
    "",
    "   \n\t ",
    "a photo of an astronaut riding a horse on mars",
    "A PHOTO, (masterpiece:1.2), [blurry]; it's we'll I'd they've o'clock!!!",
    "1girl, hatsune_miku_(vocaloid), 4k 1920x1080 0.5",
    "café naïve ﬁne — “quotes” … Ω≈ç√∫",
    "e\u0301 n\u0303 \u0928\u093f a\u0489 zero\u200bwidth",
    "日本語のテキスト 한국어 русский العربية ไทย",
    "🙂🏳️‍🌈👩‍👩‍👧‍👦 👍🏽",
    "Itâ€™s mojibake &amp; &lt;entities&gt; <b>&amp;</b>",
    "<|startoftext|> a <|endoftext|>b<|ENDOFTEXT|> <|endoftext",
    "<start_of_text> plain here",
    "x" * 400 + " antidisestablishmentarianism",
]


@pytest.fixture(scope="session")
def oracle(tmp_path_factory):
    """transformers' own tokenizer, built from the same list of merges."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = read_vocabulary(vocabulary_path())
    ids = vocabulary.ids | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in vocabulary.ranks)
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", encoding="utf-8")
    return transformers.CLIPTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer()


def test_the_vocabulary_has_clips_size():
    vocabulary = read_vocabulary(vocabulary_path())
    assert len(vocabulary.ranks) == MERGE_COUNT
    assert len(vocabulary.ids) == 49406
    assert sorted(vocabulary.ids.values()) == list(range(49406))


def test_known_ids_of_clips_vocabulary(tokenizer):
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert tokenizer.comma_id == 267
    assert tokenizer.split("as")[0] == ("as</w>", 601)


@pytest.mark.parametrize("text", EXAMPLES)
def test_ids_and_pieces_equal_transformers(text, tokenizer, oracle):
    assert tokenizer.encode(text) == oracle(text, truncation=False, add_special_tokens=False)["input_ids"]
    assert [piece for piece, _ in tokenizer.split(text)] == oracle.tokenize(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_text_gives_the_ids_of_transformers(tokenizer, oracle, text):
    assert tokenizer.encode(text) == oracle(text, truncation=False, add_special_tokens=False)["input_ids"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([
    "a", "B'S", "<|endoftext|>", "<|STARTOFTEXT|>", "&amp;", "<", "\u0301", "ß", "İ", "\u200d", "🏳️‍🌈", " ", "1", "漢",
    "'ll", "\t",
]), max_size=12))
def test_mixtures_of_awkward_pieces_give_the_ids_of_transformers(tokenizer, oracle, pieces):
    text = "".join(pieces)
    assert tokenizer.encode(text) == oracle(text, truncation=False, add_special_tokens=False)["input_ids"]


def test_open_clips_style_reads_entities_and_its_own_special_tokens():
    transformers_style, open_clip_style = Tokenizer(), Tokenizer("open_clip")
    text = "<b> &amp; tea"
    assert open_clip_style.encode(text) == transformers_style.encode("<b> & tea")
    assert transformers_style.encode(text) != transformers_style.encode("<b> & tea")
    assert open_clip_style.encode("a <end_of_text>") == [320, EOS_ID]
    assert EOS_ID not in open_clip_style.encode("<|endoftext|>")


def test_padding_follows_the_encoder():
    assert Tokenizer().frame([320])[:5] == [49406, 320, 49407, 49407, 49407]
    assert Tokenizer("open_clip").frame([320])[:5] == [49406, 320, 49407, 0, 0]
    assert len(Tokenizer().frame([])) == 77
    with pytest.raises(ValueError, match="76 tokens"):
        Tokenizer().frame([320] * 76)


def test_a_second_call_reuses_the_words(tokenizer):
    tokenizer.encode("unfathomable incomprehensibility")
    before = tokenizer._pieces.cache_info().misses
    tokenizer.encode("incomprehensibility unfathomable")
    assert tokenizer._pieces.cache_info().misses == before
