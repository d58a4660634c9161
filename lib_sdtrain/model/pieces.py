"""A model file seen under other keys than its own: each tensor made of one or several of the file's."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.keys import Row
from lib_sdtrain.model.keys.vae import former_names, is_attention_matrix
from lib_sdtrain.model.mapped import Contents, tensor_bytes
from lib_sdtrain.model.tensorfile import TensorFile


@dataclass(frozen=True)
class Piece:
    """One tensor of the checkpoint: the table's row and what its parameters are called in the file."""

    row: Row
    names: tuple[str, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]


class PiecedTensors(TensorFile):
    """The tensors of a file or folder under checkpoint keys. q, k and v are joined when they are asked for.

    `own` are tensors that the file holds as plain numbers.
    """

    def __init__(
        self, inner: TensorFile, pieces: Mapping[str, Piece], own: Mapping[str, torch.Tensor] | None = None,
    ) -> None:  # fmt: skip
        contents = Contents({}, dict(inner.metadata), notes=list(inner.notes), numbers=inner.numbers)
        super().__init__(inner.path, inner.container, contents)
        self._inner = inner
        self._pieces = dict(pieces)
        self._own = dict(own or {})

    def keys(self) -> list[str]:
        """Checkpoint keys, in the order of the tables."""
        return [*self._pieces, *self._own]

    def mark(self, key: str) -> None:
        """See `TensorFile.mark`."""
        if key not in self:
            self._own[key] = torch.empty(0)

    def extra_keys(self) -> list[str]:
        """None: what is beside the state dict and of use is among the keys."""
        return []

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape."""
        return {key: self.shape(key) for key in self.keys()}

    def forget_pages(self) -> None:
        """See `TensorFile.forget_pages`."""
        self._inner.forget_pages()

    def dtype(self, key: str) -> torch.dtype:
        """Number format of a tensor."""
        return self._own[key].dtype if key in self._own else self._pieces[key].dtype

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._own[key].shape) if key in self._own else self._pieces[key].shape

    def nbytes(self, key: str) -> int:
        """Bytes of a tensor's values."""
        if key in self._own:
            return self._own[key].nbytes
        return sum(self._inner.nbytes(name) for name in self._pieces[key].names)

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor, on the CPU."""
        if key in self._own:
            return self._own[key]
        piece = self._pieces[key]
        parts = {own: self._inner.tensor(name) for own, name in zip(piece.row.names, piece.names, strict=True)}
        return piece.row.to_file(parts, piece.shape).contiguous()  # some are transposed in a folder

    def raw(self, key: str) -> memoryview:
        """The tensor's bytes (row-major, little-endian)."""
        return tensor_bytes(self.tensor(key))

    def close(self) -> None:
        """Let go of the files."""
        self._pieces, self._own = {}, {}
        self._inner.close()

    def __contains__(self, key: object) -> bool:
        return key in self._pieces or key in self._own

    def __len__(self) -> int:
        return len(self._pieces) + len(self._own)


def pieces_of(prefix: str, rows: Iterable[Row], tensors: TensorFile, path: Path) -> dict[str, Piece]:
    """Checkpoint key -> piece, for every row of a part whose names begin with `prefix` in the file.

    Raises `UserError` naming a tensor that is missing.
    """
    pieces = {}
    for row in rows:
        names = tuple(_find(prefix, name, tensors, path) for name in row.names)
        shape = _file_shape(row, [tensors.shape(name) for name in names])
        pieces[row.key] = Piece(row, names, tensors.dtype(names[0]), shape)
    return pieces


def plain_piece(key: str, name: str, tensors: TensorFile) -> Piece:
    """A tensor that stands under another key just as it is in the file."""
    return Piece(Row(key, (key,)), (name,), tensors.dtype(name), tensors.shape(name))


def _find(prefix: str, name: str, tensors: TensorFile, path: Path) -> str:
    for candidate in (name, *former_names(name)):
        if prefix + candidate in tensors:
            return prefix + candidate
    raise UserError(f"the tensor {prefix}{name} is missing", where=str(path))


def _file_shape(row: Row, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    first = shapes[0]
    shape = (sum(one[0] for one in shapes), *first[1:])
    if row.transposed:
        return shape[::-1]
    return (*shape, 1, 1) if is_attention_matrix(row.key) and len(shape) == 2 else shape
