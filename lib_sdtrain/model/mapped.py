"""Tensors that lie in a file: where each begins, and a memory map to read them from without copying."""
from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.header import LENGTH_BYTES, header_length, parse_header


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a mapped file. `offset` in bytes; `stride` in values, None when contiguous."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    source: mmap.mmap
    offset: int
    stride: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values when contiguous."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass
class Contents:
    """What a reader found in a file.

    `tensors` is the state dict, `extra` the tensors beside it (EMA copies, optimizer state), `numbers` the plain
    numbers among and beside them, `notes` what was left out, `metadata` the text that a safetensors header carries.
    """

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str] = field(default_factory=dict)
    extra: dict[str, TensorEntry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def map_file(path: Path) -> mmap.mmap:
    """A private memory map of the whole file: writing to a tensor in it never reaches the file.

    Raises `UserError` for an empty file.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            raise UserError("the file is empty", fix="copy or download it again")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def read_safetensors(path: Path) -> Contents:
    """Map a safetensors file. Raises `UserError` when its header does not describe it exactly."""
    source = map_file(path)
    length = header_length(source[:LENGTH_BYTES], len(source))
    header = parse_header(source[LENGTH_BYTES : LENGTH_BYTES + length], len(source))
    entries = {
        key: TensorEntry(field.dtype, field.shape, source, header.data_start + field.begin)
        for key, field in header.fields.items()
    }
    return Contents(entries, dict(header.metadata))


def raw_bytes(entry: TensorEntry) -> memoryview:
    """The bytes of a tensor in row-major order, little-endian: a view where it is contiguous, else a copy."""
    if entry.stride is None:
        return memoryview(entry.source)[entry.offset : entry.offset + entry.nbytes]
    return tensor_bytes(load_tensor(entry))


def load_tensor(entry: TensorEntry) -> torch.Tensor:
    """The tensor, sharing memory with the map (copied where it is strided, or not aligned to its item size)."""
    if prod(entry.shape) == 0:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if entry.stride is not None:
        span = 1 + sum((size - 1) * step for size, step in zip(entry.shape, entry.stride, strict=True))
        return _values(entry, span).as_strided(entry.shape, entry.stride).contiguous()
    return _values(entry, prod(entry.shape)).view(entry.shape)


def _values(entry: TensorEntry, count: int) -> torch.Tensor:
    if entry.offset % entry.dtype.itemsize == 0:
        return torch.frombuffer(entry.source, dtype=entry.dtype, count=count, offset=entry.offset)
    span = count * entry.dtype.itemsize
    return torch.frombuffer(bytearray(entry.source[entry.offset : entry.offset + span]), dtype=entry.dtype)


def digest_tensor(digest: Any, name: str, tensor: torch.Tensor) -> None:
    """Take a tensor into a hash: what it is called, its number format and shape, its values."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor_bytes(tensor))


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor in row-major order, without copying a contiguous CPU tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())
