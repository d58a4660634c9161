"""VAE: LDM keys and diffusers' AutoencoderKL, derived from the architecture.

The decoder's levels are numbered from the finest in LDM and from the coarsest in diffusers. LDM keeps the
attention's matrices as 1x1 convolutions.
"""
from __future__ import annotations

from collections.abc import Iterator

from lib_sdtrain.model.family import VAEConfig
from lib_sdtrain.model.keys.table import Row, layer, layers

PREFIX = "first_stage_model."

_ENDS = (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out"))
_SAME_RESNET = (("norm1", "norm1"), ("conv1", "conv1"), ("norm2", "norm2"), ("conv2", "conv2"))
_SHORTCUT = (("nin_shortcut", "conv_shortcut"),)
_MIDDLE_ATTENTION = (
    ("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"),
)
# diffusers before 0.12 named the attention's layers otherwise.
_FORMER_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def is_attention_matrix(key: str) -> bool:
    """Whether a checkpoint keeps the tensor as a 1x1 convolution, and a module as a matrix."""
    return key.startswith(PREFIX) and ".attn_1." in key and key.endswith(".weight") and ".norm." not in key


def former_names(name: str) -> tuple[str, ...]:
    """What earlier versions of diffusers called a parameter of the VAE."""
    if ".attentions.0." not in name:
        return ()
    return tuple(
        name.replace(f".{now}.", f".{then}.") for now, then in _FORMER_ATTENTION.items() if f".{now}." in name
    )


def vae_rows(config: VAEConfig, prefix: str = PREFIX) -> list[Row]:
    """The whole table; keys carry `prefix`."""
    return [
        *_encoder_rows(config, f"{prefix}encoder"),
        *_decoder_rows(config, f"{prefix}decoder"),
        *layer(f"{prefix}quant_conv", "quant_conv"),
        *layer(f"{prefix}post_quant_conv", "post_quant_conv"),
    ]


def _encoder_rows(config: VAEConfig, key: str) -> Iterator[Row]:
    current = config.ch
    for level, channels in enumerate(config.channels):
        for index in range(config.num_res_blocks):
            ours, theirs = f"{key}.down.{level}.block.{index}", f"encoder.down_blocks.{level}.resnets.{index}"
            yield from layers(ours, theirs, _SAME_RESNET + (_SHORTCUT if current != channels else ()))
            current = channels
        if level < len(config.channels) - 1:
            yield from layer(f"{key}.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv")
    yield from _middle_rows(f"{key}.mid", "encoder.mid_block")
    yield from layers(key, "encoder", _ENDS)


def _decoder_rows(config: VAEConfig, key: str) -> Iterator[Row]:
    yield from layers(key, "decoder", _ENDS)
    yield from _middle_rows(f"{key}.mid", "decoder.mid_block")
    current = config.channels[-1]
    for position, level in enumerate(reversed(range(len(config.channels)))):
        channels = config.channels[level]
        for index in range(config.num_res_blocks + 1):
            ours, theirs = f"{key}.up.{level}.block.{index}", f"decoder.up_blocks.{position}.resnets.{index}"
            yield from layers(ours, theirs, _SAME_RESNET + (_SHORTCUT if current != channels else ()))
            current = channels
        if level:
            yield from layer(f"{key}.up.{level}.upsample.conv", f"decoder.up_blocks.{position}.upsamplers.0.conv")


def _middle_rows(key: str, name: str) -> Iterator[Row]:
    yield from layers(f"{key}.block_1", f"{name}.resnets.0", _SAME_RESNET)
    yield from layers(f"{key}.attn_1", f"{name}.attentions.0", _MIDDLE_ATTENTION)
    yield from layers(f"{key}.block_2", f"{name}.resnets.1", _SAME_RESNET)
