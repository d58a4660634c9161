"""What the WebUI needs beside a scaled-down model: a description (`.yaml`) and CLIP's files in a folder it names.

The WebUI reads the text encoder's sizes from a Hugging Face folder. The published model's stand in its own cache;
those of a smaller encoder have to be written, with the tokenizer beside them.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.durable import write_atomically
from lib_sdtrain.model.family import TextConfig
from lib_sdtrain.model.ldm_config import listed_embedders, value_at

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def tokenizer_files() -> dict[str, Any]:
    """The files of transformers' CLIPTokenizer, by name."""
    from lib_sdtrain.model.tokenizer import BOS_ID, EOS_ID, read_vocabulary, vocabulary_path

    vocabulary = read_vocabulary(vocabulary_path())
    merges = [" ".join(pair) for pair, _ in sorted(vocabulary.ranks.items(), key=lambda entry: entry[1])]
    ids = {**vocabulary.ids, BOS: BOS_ID, EOS: EOS_ID}
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    return {
        "vocab.json": json.dumps(dict(sorted(ids.items(), key=lambda entry: entry[1])), ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "special_tokens_map.json": json.dumps(special),
        "tokenizer_config.json": json.dumps(
            {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
        ),
    }


def text_config(text: TextConfig) -> dict[str, Any]:
    """transformers' CLIPTextConfig of an encoder."""
    return {
        "model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "vocab_size": text.vocab_size,
        "hidden_size": text.width, "intermediate_size": text.intermediate, "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads, "max_position_embeddings": text.positions, "hidden_act": text.activation,
        "layer_norm_eps": 1e-5, "projection_dim": text.width, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }


def write_clip_folder(parent: Path, text: TextConfig) -> Path:
    """Write the folder of an encoder into `parent` unless it is there; its absolute path."""
    folder = (parent / f"clip-{text.width}x{text.layers}-{text.intermediate}").resolve()
    config = folder / "config.json"
    wanted = json.dumps(text_config(text), indent=2)
    if config.is_file() and config.read_text("utf-8") == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer_files().items():
        write_atomically(folder / name, content.encode())
    write_atomically(config, wanted.encode())  # last: it says that the folder is complete
    return folder


def names_clip_folder(config: Path) -> bool:
    """Whether the description at `config` names a folder of this machine that holds an encoder's sizes."""
    encoder = listed_embedders(value_at(textfiles.read_mapping(config), "model", "params"))[0]
    named = value_at(encoder, "params", "version")
    return isinstance(named, str) and (Path(named) / "config.json").is_file() and Path(named).is_absolute()


def adopt(checkpoint: Path, clip_parent: Path) -> None:
    """Make a scaled-down checkpoint in SD1's or SDXL's layout one that the WebUI on this machine can load.

    Where nothing tells its number of attention heads, it is left as it is.
    """
    from lib_sdtrain.model.checkpoint import open_checkpoint
    from lib_sdtrain.model.family import SD2
    from lib_sdtrain.model.ldm_yaml import describe

    family = open_checkpoint(str(checkpoint)).family
    config = checkpoint.with_suffix(".yaml")
    described = config.is_file() and names_clip_folder(config)
    if described or family.name == SD2 or not family.scaled_down or family.unet.heads is None:
        return
    clip = write_clip_folder(clip_parent, family.text[0])
    write_atomically(config, describe(family, str(clip)).encode())
