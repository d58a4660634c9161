"""From token ids to what the UNet is told: the hidden state that the family uses, and the pooled output."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.family import TextConfig
from lib_sdtrain.model.tokenizer import EOS_ID

if TYPE_CHECKING:
    from transformers import CLIPTextModel


@dataclass(frozen=True)
class Encoded:
    """hidden (B, 77, width); pooled (B, projection) where the family uses one."""

    hidden: Tensor
    pooled: Tensor | None = None


def hidden_index(config: TextConfig, clip_skip: int, layers: int) -> int:
    """Which hidden state counts: 0 is the embedding's output, `layers` the last layer's.

    Clip skip k stands for -k where the family lets the user choose (SD1), else the family's own. Raises `UserError`
    when the encoder has fewer layers than that.
    """
    index = -clip_skip if config.skippable else config.hidden_index
    index = index + layers + 1 if index < 0 else index
    if not 0 <= index <= layers:
        raise UserError(f"clip skip {clip_skip} is too much for {layers} layers", fix=f"at most {layers + 1}")
    return index


def encode(
    model: CLIPTextModel, config: TextConfig, ids: Tensor, clip_skip: int = 1, added: Tensor | None = None
) -> Encoded:
    """Encode framed chunks, ids (B, 77) int64. Ids beyond the vocabulary are the rows of `added` (n, width).

    SD1: hidden state -k, then the final layer norm (k = 1 is the usual output). SD2: penultimate and norm. SDXL:
    penultimate of both without norm; pooled is the last state at the first end token, normed and projected.
    """
    text = model.text_model
    index = hidden_index(config, clip_skip, config.layers)
    last = config.layers if config.projection else index
    states = layer_states(text, ids, last, added)
    hidden = states[index]
    if config.final_norm:
        hidden = text.final_layer_norm(hidden)
    if not config.projection:
        return Encoded(hidden)
    ends = text.final_layer_norm(states[config.layers])[torch.arange(len(ids), device=ids.device), first_end(ids)]
    return Encoded(hidden, model.text_projection(ends))


def first_end(ids: Tensor) -> Tensor:
    """Position of the first end token of each row, (B,); the last position where there is none."""
    ends = (ids == EOS_ID).int()
    return torch.where(ends.any(1), ends.argmax(1), ids.shape[1] - 1)


def token_vectors(embedding: torch.nn.Embedding, ids: Tensor, added: Tensor | None = None) -> Tensor:
    """The vectors (B, 77, width) of ids, of which those beyond the vocabulary are the rows of `added`."""
    if added is None:
        return embedding(ids)
    beyond = ids - embedding.num_embeddings
    known = embedding(torch.where(beyond < 0, ids, 0))
    return torch.where(beyond[..., None] < 0, known, added.to(known)[beyond.clamp(min=0)])


def layer_states(text: torch.nn.Module, ids: Tensor, last: int, added: Tensor | None = None) -> list[Tensor]:
    """Hidden states 0..last; layers above `last` are not computed. `added` as in `encode`."""
    hidden = text.embeddings(inputs_embeds=token_vectors(text.embeddings.token_embedding, ids, added))
    mask = causal_mask(ids.shape[1], hidden).expand(len(ids), 1, -1, -1)
    states = [hidden]
    for layer in text.encoder.layers[:last]:
        if text.encoder.gradient_checkpointing and text.training:
            hidden = checkpoint(layer, hidden, None, mask, use_reentrant=False)[0]
        else:
            hidden = layer(hidden, attention_mask=None, causal_attention_mask=mask)[0]
        states.append(hidden)
    return states


def causal_mask(length: int, like: Tensor) -> Tensor:
    """(1, 1, length, length): the dtype's lowest number above the diagonal."""
    mask = torch.full((length, length), torch.finfo(like.dtype).min, dtype=like.dtype, device=like.device)
    return mask.triu_(1)[None, None]
