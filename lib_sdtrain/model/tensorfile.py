"""Reading model files: one lazy table of tensors, whatever the container.

`open_tensors` reads safetensors, what torch.save writes (through our own unpickler, which runs nothing)
and diffusers folders. Tensors are views of a memory map; only what is used is read from disk.
"""
from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from lib_sdtrain.errors import Problem, UserError
from lib_sdtrain.model.folder import read_folder
from lib_sdtrain.model.header import LENGTH_BYTES
from lib_sdtrain.model.mapped import Contents, TensorEntry, load_tensor, raw_bytes, read_safetensors
from lib_sdtrain.model.torchfile import read_torch_file
from lib_sdtrain.places import exists, is_dir

if TYPE_CHECKING:
    from typing_extensions import Self

SAFETENSORS, TORCH, FOLDER = "safetensors", "torch", "folder"
_READERS = {SAFETENSORS: read_safetensors, TORCH: read_torch_file, FOLDER: read_folder}
_SNIFF_BYTES = 512


class TensorFile:
    """The tensors of a model file or folder. A context manager; tensors stay valid after it is closed.

    `keys()` is the state dict; `extra_keys()` are tensors stored beside it (EMA copies, optimizer
    state), readable by the same methods. `numbers` are the plain numbers in it, by their dotted paths. `notes` say
    what of the file was left out. `container` is "safetensors", "torch" or "folder". Safe to read from several threads.
    """

    def __init__(self, path: Path, container: str, contents: Contents) -> None:
        self.path = path
        self.container = container
        self.metadata: dict[str, str] = contents.metadata
        self.notes: list[str] = contents.notes
        self.numbers: dict[str, float] = contents.numbers
        self._tensors = contents.tensors
        self._extra = contents.extra

    def keys(self) -> list[str]:
        """Names of the tensors, in the order of the file."""
        return list(self._tensors)

    def mark(self, key: str) -> None:
        """Add an empty tensor: keys by which checkpoints say what the file says in another way."""
        if key not in self._tensors:
            source = next(iter(self._tensors.values())).source
            self._tensors[key] = TensorEntry(torch.float32, (0,), source, 0)

    def extra_keys(self) -> list[str]:
        """Names of tensors outside the state dict."""
        return list(self._extra)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of the whole state dict."""
        return {key: entry.shape for key, entry in self._tensors.items()}

    def dtype(self, key: str) -> torch.dtype:
        """Number format of a tensor."""
        return self._entry(key).dtype

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._entry(key).shape

    def nbytes(self, key: str) -> int:
        """Bytes of a tensor's values."""
        return self._entry(key).nbytes

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor, on the CPU. It shares memory with the map where it can: copy before changing it."""
        return load_tensor(self._entry(key))

    def raw(self, key: str) -> memoryview:
        """The tensor's bytes (row-major, little-endian), a view of the map where it is contiguous."""
        return raw_bytes(self._entry(key))

    def forget_pages(self) -> None:
        """Take what was read of the file out of this process's memory; it is read again where it is asked for."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows
            return
        entries = (*self._tensors.values(), *self._extra.values())
        for source in {id(entry.source): entry.source for entry in entries}.values():
            source.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Let go of the maps. Each is unmapped when the last tensor that views it is gone."""
        self._tensors, self._extra = {}, {}

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(self, key: str) -> TensorEntry:
        entry = self._tensors.get(key) or self._extra.get(key)
        if entry is None:
            raise KeyError(key)
        return entry


def open_tensors(path: str | Path) -> TensorFile:
    """Open a model file, or a diffusers folder, by its content (not its extension).

    Raises `UserError` naming the file when it is missing, empty, truncated, damaged, no model file at
    all, or when it wants to run code while being read.
    """
    path = Path(path)
    try:
        container = _container(path)
        return TensorFile(path, container, _READERS[container](path))
    except UserError as error:
        raise UserError([Problem(p.what, p.where or str(path), p.fix) for p in error.problems]) from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def _container(path: Path) -> str:
    if is_dir(path):
        return FOLDER
    if not exists(path):
        raise UserError("no such file", fix="check the path")
    if not path.is_file():
        raise UserError("this is not a regular file")
    with path.open("rb") as file:
        start = file.read(_SNIFF_BYTES)
    _refuse_other_files(start)
    # A pickle begins with its protocol (0x80), a torch archive is a zip file, a tar archive has its mark at 257.
    by_torch = start[:1] == b"\x80" or start[:4] == b"PK\x03\x04" or start[257:262] == b"ustar"
    return TORCH if by_torch and start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" else SAFETENSORS


def _refuse_other_files(start: bytes) -> None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        raise UserError("the file is empty", fix="copy or download it again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            "this is a web page, not a model",
            fix="the download fetched a page (a log-in, an error): download the file itself",
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError("this is a Git LFS pointer, not the model itself", fix="fetch the file with `git lfs pull`")
