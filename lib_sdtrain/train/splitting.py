"""A micro-batch taken in pieces: less memory, the same gradients, since every sample keeps its share in the loss."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.train.batches import Batch

REMEDY = (
    "turn on train.gradient_checkpointing, choose train.optimizer adamw8bit, turn on train.optimizer_on_cpu, "
    "do not train the text encoder, train a LoRA, or lower data.resolution"
)


def pieces(batch: Batch, count: int) -> Iterator[tuple[Batch, Tensor]]:
    """`count` nearly equal parts of a batch, each with the numbers of its samples."""
    for rows in torch.arange(len(batch.prompts)).tensor_split(count):
        if len(rows):
            own = {
                field.name: getattr(batch, field.name)[rows] for field in fields(batch)
                if isinstance(getattr(batch, field.name), Tensor)
            }
            yield replace(batch, **own, prompts=tuple(batch.prompts[row] for row in rows.tolist())), rows


def doubled(count: int, rows: int) -> int:
    """How many pieces to try next. Raises `JobFailed` when there is a piece for every one of `rows` samples already."""
    if count >= rows:
        raise JobFailed("out of memory, even with one picture at a time", where="training", fix=REMEDY)
    return min(rows, count * 2)
