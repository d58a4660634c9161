"""Text encoders in transformers' own layout (SD1, SDXL's first): keys are the parameter names after a prefix."""
from __future__ import annotations

from collections.abc import Iterator

from lib_sdtrain.model.family import TextConfig
from lib_sdtrain.model.keys.table import Row, layers, weight

_LAYER = (
    "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "layer_norm1", "mlp.fc1",
    "mlp.fc2", "layer_norm2",
)


def clip_rows(config: TextConfig) -> list[Row]:
    """The whole table; keys carry the encoder's prefix."""
    return list(_rows(config))


def _rows(config: TextConfig) -> Iterator[Row]:
    for name in ("text_model.embeddings.token_embedding", "text_model.embeddings.position_embedding"):
        yield from weight(config.prefix + name, name)
    for index in range(config.layers):
        name = f"text_model.encoder.layers.{index}"
        yield from layers(config.prefix + name, name, [(part, part) for part in _LAYER])
    yield from layers(f"{config.prefix}text_model", "text_model", (("final_layer_norm", "final_layer_norm"),))
