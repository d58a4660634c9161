"""Captions of more than 75 tokens: the WebUI's form, kohya's form, and as many chunks as the longest needs."""
import pytest
import torch

from lib_sdtrain.data.captions import ZEROED
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.tokenizer import BOS_ID, EOS_ID, Tokenizer
from lib_sdtrain.sample.embeddings import Library
from lib_sdtrain.sample.text_encoding import EncodingCache, TextReader
from lib_sdtrain.settings.run import ModelSettings
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.train.long_prompts import chunks_of, joined, kohya_chunks
from lib_sdtrain.train.prompts import PromptEncoder
from tests.tiny import write_tiny

TAGS = ", ".join(f"word number {n}" for n in range(30))       # about 150 tokens


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def model(request, tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / f"{request.param}.safetensors", request.param)
    return load_model(open_checkpoint(path), device="cpu", dtype=torch.float32)


def encoder(model, length="225", form="webui"):
    return PromptEncoder(model, ModelSettings(max_token_length=length, long_prompts=form))


def test_the_webui_form_is_what_sampling_reads(model):
    """The same hidden states as the WebUI's own chunks, commas and all, for prompts without brackets."""
    reader = TextReader(model, SampleRequest(), Library(), (64, 64), EncodingCache())
    (reference,) = reader([TAGS], negative=False)
    ours = encoder(model).encode([TAGS])
    assert ours.context.shape[1] > 77
    assert torch.allclose(ours.context, reference.context, atol=1e-5)
    assert ours.pooled is None or torch.allclose(ours.pooled, reference.pooled, atol=1e-5)


def test_the_longest_of_the_batch_decides(model):
    words = encoder(model)
    short = words.encode(["a dog"]).context
    both = words.encode(["a dog", TAGS]).context
    assert short.shape[1] == 77
    assert both.shape[1] > 77
    assert torch.allclose(both[0, :77], short[0], atol=1e-6)
    assert torch.allclose(both[0, 77:154], words.encode([""]).context[0], atol=1e-6)
    assert encoder(model, "150").encode([TAGS * 3]).context.shape[1] == 154
    assert encoder(model, "75").encode([TAGS]).context.shape[1] == 77


def test_kohyas_form_keeps_one_start_and_one_end(model):
    long = encoder(model, "225", "kohya").encode([TAGS, "a dog"]).context
    assert long.shape[1] == 227
    assert encoder(model, "150", "kohya").encode(["a dog"]).context.shape[1] == 152


def test_a_caption_that_is_dropped_altogether_is_zero(model):
    words = encoder(model).encode(["a dog", ZEROED])
    assert not words.context[1].any()
    assert words.context[0].any()
    assert words.pooled is None or not words.pooled[1].any()


def test_kohyas_chunks_by_hand():
    ids = list(range(1000, 1100))
    first, second = kohya_chunks(Tokenizer(), ids, 150)
    assert first == (BOS_ID, *range(1000, 1075), EOS_ID)
    assert second == (BOS_ID, *range(1075, 1100), *[EOS_ID] * 51)
    first, second, third = kohya_chunks(Tokenizer("open_clip"), ids[:75], 225)
    assert first == (BOS_ID, *range(1000, 1075), EOS_ID)          # the last id is padding: made an end
    assert second[:3] == (BOS_ID, EOS_ID, 0)                       # the end token stands here anyway
    assert third[:3] == (BOS_ID, EOS_ID, 0)                        # begins with padding: an end first
    assert len(first) == len(second) == len(third) == 77


def test_joining_by_hand():
    hidden = torch.arange(2 * 77.0).reshape(1, 2, 77, 1)
    assert joined(hidden, "webui").flatten().tolist() == list(range(154))
    assert joined(hidden, "kohya").flatten().tolist() == [0, *range(1, 76), *range(78, 153), 153]
    assert chunks_of(Tokenizer(), "a dog", 75, "kohya") == chunks_of(Tokenizer(), "a dog", 225, "webui")
