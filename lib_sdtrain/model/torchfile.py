"""Model files written by torch.save, read without torch.load: nothing of the file's choosing runs.

Two containers: a zip archive (torch >= 1.6) whose storages are stored members, and the older stream of
pickles followed by the storages. Both are mapped into memory; a tensor is read when it is asked for.
"""
from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.mapped import Contents, TensorEntry, map_file
from lib_sdtrain.model.unpickle import StorageRef, TensorRef, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = 30
_MAX_DEPTH = 32


@dataclass(frozen=True)
class Region:
    """Where a storage's bytes lie in the file."""

    begin: int
    size: int


def read_torch_file(path: Path) -> Contents:
    """Map a `.ckpt`, `.pt`, `.pth` or `.bin` file; the nested `state_dict` is unwrapped.

    Raises `UserError` for a file that is damaged, truncated, or wants to run code.
    """
    source = map_file(path)
    if source[:4] == b"PK\x03\x04":
        document, regions = _read_zip(path, source)
    elif source[257:262] == b"ustar":
        raise UserError("this is a tar archive (torch older than 0.2), which is not supported", fix="save it anew")
    else:
        document, regions = _read_legacy(path, source)
    return _contents(document, source, regions)


def _read_zip(path: Path, source: mmap.mmap) -> tuple[Any, dict[str, Region]]:
    members = _members(path, source)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError("this zip archive is not a model (it has no data.pkl of torch.save)")
    prefix = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{prefix}byteorder")
    if order is not None and source[order.begin : order.begin + order.size] != b"little":
        raise UserError("the file was written on a big-endian machine, which is not supported")
    pickled = members[pickles[0]]
    document, _ = unpickle(io.BytesIO(source[pickled.begin : pickled.begin + pickled.size]))
    start = f"{prefix}data/"
    regions = {name.removeprefix(start): region for name, region in members.items() if name.startswith(start)}
    return document, regions


def _members(path: Path, source: mmap.mmap) -> dict[str, Region]:
    """Where each member of the archive lies. Only the directory is read through zipfile."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UserError("the file is truncated or damaged", fix="copy or download it again") from error
    if any(info.filename.endswith("/constants.pkl") for info in infos):
        raise UserError("this is a TorchScript program, not a checkpoint")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise UserError("this zip archive is compressed, which torch.save never does", fix="unpack it first")
    return {info.filename: _member(source, info) for info in infos}


def _member(source: mmap.mmap, info: zipfile.ZipInfo) -> Region:
    local = source[info.header_offset : info.header_offset + _LOCAL_HEADER]
    if len(local) < _LOCAL_HEADER or local[:4] != b"PK\x03\x04":
        raise UserError(f"the file is damaged (at {info.filename})")
    names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return Region(info.header_offset + _LOCAL_HEADER + names, info.file_size)


def _read_legacy(path: Path, source: mmap.mmap) -> tuple[Any, dict[str, Region]]:
    """Magic number, protocol, machine, object, list of storage keys; then each storage: count (8 bytes), values."""
    with path.open("rb") as file:
        if unpickle(file)[0] != LEGACY_MAGIC:
            raise UserError("this pickle was not written by torch.save, so it is no model file")
        if unpickle(file)[0] != LEGACY_PROTOCOL:
            raise UserError("the file was written by a torch of unknown format")
        unpickle(file)
        document, widths = unpickle(file)
        keys, _ = unpickle(file)
        if not isinstance(keys, list) or not all(key in widths for key in keys):
            raise UserError("the file is damaged (its list of storages)")
        return document, dict(_legacy_regions(file, keys, widths, len(source)))


def _legacy_regions(
    file: IO[bytes], keys: list[str], widths: Mapping[str, int], file_size: int
) -> Iterator[tuple[str, Region]]:
    position = file.tell()
    for key in keys:
        file.seek(position)
        size = int.from_bytes(file.read(8), "little") * widths[key]
        if position + 8 + size > file_size:
            raise UserError("the file is truncated or damaged", fix="copy or download it again")
        yield key, Region(position + 8, size)
        position += 8 + size


def _walk(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dicts and lists with its dotted path."""
    if depth > _MAX_DEPTH:
        raise UserError("the file is nested too deeply to be a model")
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        yield path, value
    for name, inner in items:
        yield from _walk(inner, f"{path}.{name}" if path else str(name), depth + 1)


def _contents(document: Any, source: mmap.mmap, regions: Mapping[str, Region]) -> Contents:
    """The state dict (unwrapped) and, under their dotted paths, the tensors beside it."""
    if isinstance(document, TensorRef) or not isinstance(document, (dict, list, tuple)):
        raise UserError("this file holds no table of weights")
    state, beside = _unwrap(document)
    inside, others = list(_walk(state)), list(_walk(beside))
    tensors = {path: ref for path, ref in inside if isinstance(ref, TensorRef)}
    extra = {path: ref for path, ref in others if isinstance(ref, TensorRef)}
    left_out = _tops(path for path, ref in others if not isinstance(ref, TensorRef))
    notes = [f"left out, not weights: {left_out}"] if left_out else []
    if extra:
        notes.append(f"beside the weights: {_tops(extra)}")
    return Contents(
        {key: _entry(key, ref, source, regions) for key, ref in tensors.items()},
        extra={key: _entry(key, ref, source, regions) for key, ref in extra.items()},
        notes=notes,
        numbers={path: value for path, value in (*inside, *others) if type(value) in (int, float)},
    )


def _tops(paths: Iterable[str]) -> str:
    return ", ".join(sorted({path.split(".")[0] for path in paths}))


def _unwrap(document: Any) -> tuple[Any, dict[Any, Any]]:
    beside: dict[Any, Any] = {}
    for _ in range(_MAX_DEPTH):
        if not isinstance(document, dict) or not isinstance(document.get("state_dict"), dict):
            break
        beside |= {name: value for name, value in document.items() if name != "state_dict"}
        document = document["state_dict"]
    return document, beside


def _entry(key: str, ref: TensorRef, source: mmap.mmap, regions: Mapping[str, Region]) -> TensorEntry:
    storage: StorageRef = ref.storage
    region = regions.get(storage.key)
    if region is None:
        raise UserError(f"the file is damaged: the values of {key!r} are missing")
    width = ref.dtype.itemsize
    begin = storage.offset * (storage.dtype.itemsize if storage.dtype else 1) + ref.offset * width
    span = 0
    if prod(ref.shape):
        span = width * (1 + sum((size - 1) * step for size, step in zip(ref.shape, ref.stride, strict=True)))
    if begin + span > region.size or region.begin + region.size > len(source):
        raise UserError(f"the file is truncated or damaged: the values of {key!r} end too early")
    contiguous = _is_contiguous(ref.shape, ref.stride)
    return TensorEntry(ref.dtype, ref.shape, source, region.begin + begin, None if contiguous else ref.stride)


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True
