"""Prompts of more than 75 tokens: how they are cut into chunks, and how the chunks' hidden states are put together."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.sample.chunks import Find, cut, nothing_to_find

CHUNK = 75
WEBUI, KOHYA = "webui", "kohya"


def chunks_of(
    tokenizer: Tokenizer, prompt: str, limit: int, form: str, find: Find = nothing_to_find
) -> list[tuple[int, ...]]:
    """Framed chunks of 77 ids, as many as the prompt needs up to `limit` tokens; what is left over is cut off.

    `webui`: each chunk has its own start and end, and ends at a near comma where it can (AUTOMATIC1111). `kohya`:
    always limit / 75 of them; see `kohya_chunks`. With a limit of 75 both are the first 75 tokens. `find` knows the
    embeddings that the prompt may name; what it finds has `ids` of its own.
    """
    ids = with_embeddings(tokenizer.encode(prompt), find)
    if limit == CHUNK or (form == WEBUI and len(ids) <= CHUNK):
        return [tuple(tokenizer.frame(ids[:CHUNK]))]
    if form == KOHYA:
        return kohya_chunks(tokenizer, ids, limit)
    pieces = []
    for chunk in cut(prompt, tokenizer, emphasis="None", find=find)[: limit // CHUNK]:
        words = chunk.ids[1:-1]
        for insert in chunk.inserts:
            words[insert.offset : insert.offset + insert.embedding.vectors] = insert.embedding.ids
        end = words.index(tokenizer.eos_id) if tokenizer.eos_id in words else len(words)
        pieces.append(tuple(tokenizer.frame(words[:end])))
    return pieces


def with_embeddings(ids: Sequence[int], find: Find) -> list[int]:
    """Token ids in which the names of embeddings are replaced by their ids."""
    found, position = [], 0
    while position < len(ids):
        embedding, length = find(ids, position)
        found += embedding.ids if embedding else ids[position : position + 1]
        position += length or 1
    return found


def kohya_chunks(tokenizer: Tokenizer, ids: Sequence[int], limit: int) -> list[tuple[int, ...]]:
    """kohya's scripts: one start, `limit` tokens, one end, padded; chunk i is the start, tokens 75 i to 75 i + 74 and
    the last id of all. Where padding is not the end token (SD2, SDXL's second encoder), a chunk that ends in a word
    gets an end token, and one that begins with padding too.
    """
    whole = tokenizer.frame(list(ids[:limit]), limit + 2)
    pieces = []
    for start in range(1, limit, CHUNK):
        piece = [whole[0], *whole[start : start + CHUNK], whole[-1]]
        if tokenizer.pad_id != tokenizer.eos_id:
            if piece[-2] not in (tokenizer.eos_id, tokenizer.pad_id):
                piece[-1] = tokenizer.eos_id
            if piece[1] == tokenizer.pad_id:
                piece[1] = tokenizer.eos_id
        pieces.append(tuple(piece))
    return pieces


def empty_chunk(tokenizer: Tokenizer) -> tuple[int, ...]:
    """A chunk without words, for prompts that have fewer chunks than their neighbours in the batch."""
    return tuple(tokenizer.frame([]))


def joined(hidden: Tensor, form: str) -> Tensor:
    """Hidden states (prompts, chunks, 77, width) as one text: (prompts, 77 chunks, width) in the WebUI's form; kohya's
    keeps the first start and the last end only, (prompts, 75 chunks + 2, width).
    """
    count = hidden.shape[1]
    if form == WEBUI or count == 1:
        return hidden.flatten(1, 2)
    return torch.cat([hidden[:, 0, :1], hidden[:, :, 1:-1].flatten(1, 2), hidden[:, -1, -1:]], dim=1)
