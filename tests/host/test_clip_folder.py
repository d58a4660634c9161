"""What is written beside a scaled-down model, so that the WebUI can load it."""
from __future__ import annotations

from pathlib import Path

import pytest

from lib_sdtrain import textfiles
from lib_sdtrain.host.clip_folder import adopt, names_clip_folder, text_config, write_clip_folder
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.tokenizer import Tokenizer
from tests.tiny import tiny_family, write_tiny

WORDS = "A photo of sks dog, naïve café 42 日本 \"it's\" (masterpiece:1.2)"


def test_transformers_reads_the_folder_as_our_own_tokenizer_reads(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    folder = write_clip_folder(tmp_path, tiny_family().text[0])
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    ids = theirs(WORDS)["input_ids"]
    assert ids[1:-1] == Tokenizer().encode(WORDS)
    assert (ids[0], ids[-1], theirs.pad_token_id) == (49406, 49407, 49407)


def test_transformers_builds_the_encoder_that_the_weights_fit(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig.from_pretrained(write_clip_folder(tmp_path, tiny_family().text[0]))
    text = tiny_family().text[0]
    assert (config.hidden_size, config.num_hidden_layers) == (text.width, text.layers)
    assert (config.num_attention_heads, config.intermediate_size) == (text.heads, text.intermediate)


def test_the_published_encoder_is_described_as_published():
    from lib_sdtrain.model.family import PUBLISHED

    config = text_config(PUBLISHED["sd1"].text[0])
    published = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072,
                 "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}  # fmt: skip
    assert {name: config[name] for name in published} == published


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_an_adopted_checkpoint_is_described_as_what_it_is(tmp_path: Path, name):
    path = write_tiny(tmp_path / "tiny.safetensors", name)
    before = open_checkpoint(str(path)).family
    adopt(path, tmp_path / "clip")
    assert names_clip_folder(path.with_suffix(".yaml"))
    assert open_checkpoint(str(path)).family == before


def test_a_description_that_already_fits_is_left_alone(tmp_path: Path):
    path = write_tiny(tmp_path / "tiny.safetensors")
    adopt(path, tmp_path / "clip")
    config = path.with_suffix(".yaml")
    config.write_text(config.read_text("utf-8") + "# mine\n", encoding="utf-8")
    adopt(path, tmp_path / "other")
    assert config.read_text("utf-8").endswith("# mine\n")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_is_gone_is_written_again(tmp_path: Path):
    path = write_tiny(tmp_path / "tiny.safetensors")
    adopt(path, tmp_path / "clip")
    adopted = textfiles.read_mapping(path.with_suffix(".yaml"))["model"]["params"]["cond_stage_config"]["params"]
    (Path(adopted["version"]) / "config.json").unlink()
    adopt(path, tmp_path / "clip")
    assert names_clip_folder(path.with_suffix(".yaml"))
