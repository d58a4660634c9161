"""Text encoders in open_clip's layout (SD2, SDXL's second) and transformers' CLIPTextModel(WithProjection).

open_clip keeps q, k and v of a layer as one matrix and the text projection transposed.
"""
from __future__ import annotations

from collections.abc import Iterator

from lib_sdtrain.model.family import TextConfig
from lib_sdtrain.model.keys.table import Row, layers

_LAYER = (
    ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
)


def openclip_rows(config: TextConfig) -> list[Row]:
    """The whole table; keys carry the encoder's prefix."""
    return list(_rows(config))


def _rows(config: TextConfig) -> Iterator[Row]:
    prefix = config.prefix
    embeddings = "text_model.embeddings"
    yield Row(f"{prefix}positional_embedding", (f"{embeddings}.position_embedding.weight",))
    yield Row(f"{prefix}token_embedding.weight", (f"{embeddings}.token_embedding.weight",))
    if config.projection is not None:
        yield Row(f"{prefix}text_projection", ("text_projection.weight",), transposed=True)
    for index in range(config.layers):
        ours, theirs = f"{prefix}transformer.resblocks.{index}", f"text_model.encoder.layers.{index}"
        for part in ("weight", "bias"):
            names = tuple(f"{theirs}.self_attn.{letter}_proj.{part}" for letter in "qkv")
            yield Row(f"{ours}.attn.in_proj_{part}", names)
        yield from layers(ours, theirs, _LAYER)
    yield from layers(prefix.removesuffix("."), "text_model", (("ln_final", "final_layer_norm"),))
