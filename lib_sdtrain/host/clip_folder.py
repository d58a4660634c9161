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
from lib_sdtrain.model.family import Family, TextConfig

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


def description(family: Family, clip: Path) -> str:
    """The `.yaml` of a model in SD1's layout, as LDM reads it."""
    schedule = family.schedule
    params = {
        "linear_start": schedule.linear_start, "linear_end": schedule.linear_end, "timesteps": schedule.timesteps,
        "num_timesteps_cond": 1, "log_every_t": 200, "first_stage_key": "jpg", "cond_stage_key": "txt",
        "image_size": family.resolution // family.vae.downscale, "channels": family.vae.z_channels,
        "cond_stage_trainable": False, "conditioning_key": "crossattn", "monitor": "val/loss_simple_ema",
        "scale_factor": family.scale_factor, "use_ema": False,
        "parameterization": "v" if family.prediction_type == "v_prediction" else "eps",
        "unet_config": _unet(family), "first_stage_config": _vae(family),
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder", "params": {"version": str(clip)},
        },
    }
    target = "ldm.models.diffusion.ddpm.LatentDiffusion"
    return textfiles.write_yaml({"model": {"base_learning_rate": 1e-4, "target": target, "params": params}})


def _unet(family: Family) -> dict[str, Any]:
    unet = family.unet
    levels = [2**level for level, depth in enumerate(unet.transformer_depth) if depth]
    return {
        "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "params": {
            "image_size": 32, "in_channels": unet.in_channels, "out_channels": unet.out_channels,
            "model_channels": unet.model_channels, "attention_resolutions": levels[::-1],
            "num_res_blocks": unet.num_res_blocks[0], "channel_mult": list(unet.channel_mult),
            "num_heads": unet.heads[0] if unet.heads else 8, "use_spatial_transformer": True,
            "transformer_depth": unet.middle_depth, "context_dim": unet.context_dim, "use_checkpoint": False,
            "legacy": False,
        },
    }


def _vae(family: Family) -> dict[str, Any]:
    vae = family.vae
    sizes = {
        "double_z": True, "z_channels": vae.z_channels, "resolution": 256, "in_channels": vae.in_channels,
        "out_ch": vae.out_channels, "ch": vae.ch, "ch_mult": list(vae.ch_mult),
        "num_res_blocks": vae.num_res_blocks, "attn_resolutions": [], "dropout": 0.0,
    }
    return {
        "target": "ldm.models.autoencoder.AutoencoderKL",
        "params": {
            "embed_dim": vae.z_channels, "monitor": "val/rec_loss", "ddconfig": sizes,
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }


def names_clip_folder(config: Path) -> bool:
    """Whether the description at `config` names a folder of this machine that holds an encoder's sizes."""
    data = textfiles.read_mapping(config)
    for name in ("model", "params", "cond_stage_config", "params", "version"):
        data = data.get(name) if isinstance(data, dict) else None
    return isinstance(data, str) and (Path(data) / "config.json").is_file() and Path(data).is_absolute()


def adopt(checkpoint: Path, clip_parent: Path) -> None:
    """Make a scaled-down checkpoint in SD1's layout one that the WebUI on this machine can load."""
    from lib_sdtrain.model.checkpoint import open_checkpoint

    family = open_checkpoint(str(checkpoint)).family
    config = checkpoint.with_suffix(".yaml")
    if family.name != "sd1" or not family.scaled_down or (config.is_file() and names_clip_folder(config)):
        return
    clip = write_clip_folder(clip_parent, family.text[0])
    write_atomically(config, description(family, clip).encode())
