"""The one writer of model files: atomic, deterministic, hashed while it writes.

The same tensors and metadata give the same bytes, and the bytes that the safetensors library would
write. A crash, a full disk or a cancel at any moment leaves the target as it was.
"""
from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from lib_sdtrain.durable import fsync_path, remove_stale, temporary_beside, write_atomically
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.model.casting import convert_into
from lib_sdtrain.model.follower import Follower
from lib_sdtrain.model.hashes import sha256
from lib_sdtrain.model.header import LENGTH_BYTES, Header, Spec, build_header, header_length, parse_header
from lib_sdtrain.model.mapped import tensor_bytes
from lib_sdtrain.model.space import disk_full, free_bytes, is_full, require_space
from lib_sdtrain.places import check_name, check_writable, is_dir

if TYPE_CHECKING:
    from typing_extensions import Self

_PIECE = 2**20  # values


@dataclass(frozen=True)
class Written:
    """A finished file: where it stands, its SHA-256 (hex) and its size in bytes."""

    path: Path
    sha256: str
    size: int


class CheckpointWriter:
    """Writes one safetensors file of known keys, dtypes and shapes.

    `with CheckpointWriter(out, specs, metadata) as w:` then `w.write(key, tensor)` for each of `w.keys`.
    That order (item size, then name, as the library lays files out) keeps the disk sequential; any other
    order, several threads and pieces of a tensor (`write_raw` with `start`) work too. Afterwards
    `w.result` is the `Written` file. With `yaml_text` a `.yaml` of the same stem is put in place just
    before the weights get their name; without it, a `.yaml` that belonged to an overwritten checkpoint
    is removed. `verify` reads the finished file back from the disk and compares its hash; `expects` (name
    -> shape) are tensors that its header must then name: what the file's readers will ask for.

    Raises `UserError` for an impossible target, `DiskFullError` when the space does not suffice,
    `ValueError` when a tensor does not fit `specs` or one is missing at the end, `OSError` when the file reads
    back different, `JobFailed` when it lacks what is expected.
    """

    def __init__(
        self, out: str | Path, specs: Mapping[str, Spec], metadata: Mapping[str, str],
        yaml_text: str | None = None, verify: bool = False, *, expects: Mapping[str, Sequence[int]] | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(out)
        self._result: Written | None = None
        self._head, header = build_header(specs, metadata)
        self._fields = header.fields
        self._data_start = header.data_start
        self.keys = list(self._fields)
        self.size = header.data_start + header.data_size
        self._yaml_text = yaml_text
        self._verify = verify
        self._expects = expects or {}
        self._lock = threading.Lock()
        self._written = dict.fromkeys(self.keys, 0)
        self._frontier = 0  # keys[:_frontier] are complete

    @property
    def result(self) -> Written:
        """The finished file; there is none before the `with` block has ended well."""
        if self._result is None:
            raise ValueError(f"{self.path} is not written yet")
        return self._result

    def write(self, key: str, tensor: torch.Tensor) -> None:
        """Write a whole tensor (any device, any strides; the caller may change it afterwards)."""
        field = self._fields[key]
        if tensor.dtype != field.dtype or tuple(tensor.shape) != field.shape:
            given = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise ValueError(f"{key}: {given} given, {field.dtype} {field.shape} announced")
        self.write_raw(key, tensor_bytes(tensor))

    def write_cast(self, key: str, tensor: torch.Tensor) -> bool:
        """Write a whole CPU tensor converted to the announced number format, piece by piece.

        True when it held values that the format cannot (fp16 ends at 65504).
        """
        field = self._fields[key]
        if tensor.dtype == field.dtype or tuple(tensor.shape) != field.shape:
            self.write(key, tensor)
            return False
        flat = tensor.detach().reshape(-1)
        scratch = torch.empty(min(_PIECE, flat.numel()), dtype=field.dtype)
        beyond = False
        for start in range(0, flat.numel(), _PIECE):
            piece = flat[start : start + _PIECE]
            beyond |= convert_into(scratch, piece)
            self.write_raw(key, tensor_bytes(scratch[: piece.numel()]), start * field.dtype.itemsize)
        return beyond

    def write_raw(self, key: str, data: memoryview | bytes, start: int = 0) -> None:
        """Write bytes of a tensor's values (row-major, little-endian) from byte `start` of it on."""
        field = self._fields[key]
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        if start < 0 or start + len(view) > field.end - field.begin:
            raise ValueError(f"{key}: {len(view)} bytes at {start} do not fit in {field.end - field.begin}")
        with self._lock:
            self._put(self._data_start + field.begin + start, view)
            self._written[key] += len(view)
            self._advance()

    def __enter__(self) -> Self:
        if is_dir(self.path):
            raise UserError("a folder of this name stands there", where=str(self.path), fix="choose another name")
        check_name(self.path.name, str(self.path))
        check_writable(self.path.parent, str(self.path))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(self.path)
        require_space(self.path, self.size + len(self._yaml_text or ""))
        self._temporary = temporary_beside(self.path)
        self._file = self._temporary.open("xb", buffering=0)
        self._position = 0
        self._follower = Follower(self._temporary)
        try:
            self._put(0, memoryview(self._head))
            self._advance()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._result = self._commit()
        except BaseException:
            self._discard()
            raise

    def _put(self, position: int, view: memoryview) -> None:
        try:
            if position != self._position:
                self._file.seek(position)
            while len(view):
                count = self._file.write(view)
                view, position = view[count:], position + count
            self._position = position
        except OSError as error:
            self._translate(error)

    def _translate(self, error: OSError) -> None:
        if not is_full(error):
            raise error
        held = os.fstat(self._file.fileno()).st_blocks * 512 if hasattr(os.stat_result, "st_blocks") else 0
        raise disk_full(self.path, self.size, free_bytes(self.path.parent) + held) from error

    def _advance(self) -> None:
        while self._frontier < len(self.keys):
            key = self.keys[self._frontier]
            field = self._fields[key]
            if self._written[key] < field.end - field.begin:
                self._follower.advance(self._data_start + field.begin)
                return
            self._frontier += 1
        self._follower.advance(self.size)

    def _commit(self) -> Written:
        if self._frontier < len(self.keys):
            missing = [key for key in self.keys[self._frontier :] if not self._complete(key)]
            raise ValueError(f"{len(missing)} tensors were not written, the first is {missing[0]}")
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._translate(error)
        digest = self._follower.finish()
        self._file.close()
        if self._verify:
            check_expected(_read_back(self._temporary, digest), self._expects, self.path)
        _put_in_place(self._temporary, self.path, self._yaml_text)
        return Written(self.path, digest, self.size)

    def _complete(self, key: str) -> bool:
        field = self._fields[key]
        return self._written[key] == field.end - field.begin

    def _discard(self) -> None:
        self._follower.stop()
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _read_back(path: Path, digest: str) -> Header:
    """The header of the file as the disk has it, after a comparison with the digest taken while writing."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # else the page cache answers and the disk is never asked
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = path.stat().st_size
        if sha256(path) != digest:
            raise OSError(f"{path} reads back different from what was written: the disk may be failing")
        length = header_length(file.read(LENGTH_BYTES), size)
        return parse_header(file.read(length), size)


def check_expected(header: Header, expects: Mapping[str, Sequence[int]], path: Path) -> None:
    """Raise `JobFailed` when a file lacks tensors that its readers need, or has them in another shape."""
    wrong = [
        key for key, shape in expects.items()
        if key not in header.fields or header.fields[key].shape != tuple(shape)
    ]
    if wrong:
        raise JobFailed(
            f"{len(wrong)} of {len(expects)} tensors that the WebUI loads are missing or of another shape, the first "
            f"is {wrong[0]}; nothing was kept of it", where=str(path), fix="the run can go on from its saved state; "
            "please report this",
        )  # fmt: skip


def _put_in_place(temporary: Path, target: Path, yaml_text: str | None) -> None:
    """The `.yaml` first, then the weights: a checkpoint is never seen without the description it needs."""
    side = target.with_suffix(".yaml")
    former = side.read_bytes() if side.is_file() else None
    replaces = target.exists()
    if yaml_text is not None:
        write_atomically(side, yaml_text.encode())
    try:
        temporary.replace(target)
    except OSError:
        if yaml_text is not None:
            _restore(side, former)
        raise
    if yaml_text is None and replaces and former is not None:
        side.unlink()
    fsync_path(target.parent)


def _restore(side: Path, former: bytes | None) -> None:
    if former is None:
        side.unlink()
    else:
        write_atomically(side, former)


def specs_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Spec]:
    """Name -> dtype and shape, as `CheckpointWriter` is told them."""
    return {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}


def write_checkpoint(
    out: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], yaml_text: str | None = None,
    verify: bool = False,
) -> Written:  # fmt: skip
    """Write tensors that are all in memory. Raises as `CheckpointWriter` does."""
    with CheckpointWriter(out, specs_of(tensors), metadata, yaml_text, verify=verify) as writer:
        for key in writer.keys:
            writer.write(key, tensors[key])
    return writer.result


def file_size(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> int:
    """Bytes that a checkpoint of these tensors takes on disk."""
    head, _ = build_header(specs, metadata)
    return len(head) + sum(prod(shape) * dtype.itemsize for dtype, shape in specs.values())
