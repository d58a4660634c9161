"""The header of a safetensors file: read with full validation, and laid out byte for byte as the library does.

Format (https://github.com/huggingface/safetensors): 8 bytes little-endian length N, N bytes of JSON, data.
The JSON maps each key to dtype, shape and [begin, end) in the data; `__metadata__` maps text to text.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.dtypes import DTYPES, LAYOUT_RANK, dtype_name

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # the library's own limit
ALIGNMENT = 8

Spec = tuple[torch.dtype, Sequence[int]]


@dataclass(frozen=True)
class Field:
    """One tensor of the header; `begin` and `end` count bytes from the start of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """`fields` in the order of the data; `data_start` is the file offset of the first data byte."""

    fields: dict[str, Field]
    metadata: dict[str, str]
    data_start: int

    @property
    def data_size(self) -> int:
        """Bytes of tensor data."""
        return max((field.end for field in self.fields.values()), default=0)


def header_length(start: bytes, file_size: int) -> int:
    """Length of the JSON from the file's first 8 bytes; `UserError` when it cannot be right."""
    if len(start) < LENGTH_BYTES:
        raise UserError(f"the file has only {file_size} bytes, too few for a safetensors file")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if length > MAX_HEADER:
        raise UserError("this is not a safetensors file (its first 8 bytes announce no sensible header)")
    if LENGTH_BYTES + length > file_size:
        raise UserError(
            f"the file ends inside its header ({file_size} of at least {LENGTH_BYTES + length} bytes)",
            fix="the file is truncated: copy or download it again",
        )
    return length


def parse_header(text: bytes, file_size: int) -> Header:
    """Validate the JSON bytes of a header against the size of the file.

    Every key must be unique, every dtype known, shape and size must agree, and the tensors must cover
    the data exactly: no overlap, no hole, nothing after the last one. Raises `UserError`.
    """
    document = _decode(text)
    metadata = _metadata(document.pop("__metadata__", {}))
    data_start = LENGTH_BYTES + len(text)
    fields = {key: _field(key, value) for key, value in document.items()}
    ordered = dict(sorted(fields.items(), key=lambda item: (item[1].begin, item[1].end)))
    header = Header(ordered, metadata, data_start)
    _check_cover(header, file_size - data_start)
    return header


def _decode(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise UserError("this is not a safetensors file (no header at its beginning)")
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the safetensors header is damaged ({error})") from error
    if not isinstance(document, dict):
        raise UserError("the safetensors header is damaged (it is not a table of tensors)")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    for name in table:
        name.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in table if names.count(name) > 1)
        raise UserError(f"the safetensors header names {twice!r} twice")
    return table


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UserError("the safetensors metadata is damaged (it must map text to text)")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _field(key: str, value: Any) -> Field:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"the safetensors header is damaged at {key!r}")
    name, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(name, str) or name not in DTYPES:
        raise UserError(f"{key!r} has a number format that is not known here: {name!r}")
    counts_fit = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not counts_fit or not all(_is_count(number) for number in (*shape, *offsets)):
        raise UserError(f"the safetensors header is damaged at {key!r} (shape or offsets)")
    dtype, (begin, end) = DTYPES[name], offsets
    if prod(shape) * dtype.itemsize != end - begin:
        raise UserError(f"the safetensors header is damaged at {key!r} (shape {shape} does not fill its bytes)")
    return Field(dtype, tuple(shape), begin, end)


def _check_cover(header: Header, available: int) -> None:
    position = 0
    for key, field in header.fields.items():
        if field.begin != position:
            problem = "overlaps another tensor" if field.begin < position else "leaves a hole before it"
            raise UserError(f"the safetensors header is damaged ({key!r} {problem})")
        position = field.end
    if position > available:
        raise UserError(
            f"the file is truncated: {available:,} of {position:,} bytes of weights are there",
            fix="copy or download it again",
        )
    if position < available:
        raise UserError(f"the file is damaged: {available - position:,} bytes follow the last tensor")


def layout_order(specs: Mapping[str, Spec]) -> list[str]:
    """The order in which the library lays tensors out: item size (dtype rank) first, then name."""
    return sorted(specs, key=lambda key: (LAYOUT_RANK[specs[key][0]], key.encode()))


def build_header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """Bytes to write first (length, JSON, padding to 8) and the layout they describe.

    Tensors stand in `layout_order`, metadata sorted by name. Raises `UserError` for a dtype that a
    safetensors file cannot hold.
    """
    for dtype, _ in specs.values():
        dtype_name(dtype)
    fields = dict(_place((key, specs[key]) for key in layout_order(specs)))
    document: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for key, field in fields.items():
        document[key] = {
            "dtype": dtype_name(field.dtype),
            "shape": list(field.shape),
            "data_offsets": [field.begin, field.end],
        }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, Header(fields, dict(metadata), LENGTH_BYTES + len(text))


def _place(ordered: Iterable[tuple[str, Spec]]) -> Iterable[tuple[str, Field]]:
    position = 0
    for key, (dtype, shape) in ordered:
        end = position + prod(shape) * dtype.itemsize
        yield key, Field(dtype, tuple(shape), position, end)
        position = end
