"""Textual-inversion embeddings: files of vectors that a name in the prompt stands for.

Old form (.pt): a dictionary with `string_to_param`; diffusers' form: one tensor under the placeholder; SDXL: `clip_l`
and `clip_g`. Source of the forms: AUTOMATIC1111 WebUI 1.10.1, textual_inversion.py.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.hashes import sha256
from lib_sdtrain.model.tensorfile import open_tensors

SUFFIXES = (".pt", ".bin", ".safetensors")
SDXL_PARTS = ("clip_l", "clip_g")
"""What files call the vectors for SDXL's two text encoders."""
_MOST_TENSORS = 8


@dataclass(frozen=True)
class Embedding:
    """`parts`: vectors (n, width) by encoder (`clip_l`, `clip_g`), or the one tensor under ``.

    One without a `path` is not in a file yet.
    """

    name: str
    path: Path | None
    parts: dict[str, torch.Tensor]

    @property
    def vectors(self) -> int:
        """How many tokens it takes up."""
        return len(next(iter(self.parts.values())))

    @property
    def width(self) -> int:
        """Widths of all parts together, which must be those of the model's encoders."""
        return sum(part.shape[-1] for part in self.parts.values())

    @property
    def short_hash(self) -> str:
        """The first 12 digits of the SHA-256 of the file, of the numbers where there is none."""
        if self.path is not None:
            return sha256(self.path)[:12]
        digest = hashlib.sha256()
        for part in self.parts.values():
            digest.update(part.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    @property
    def listed(self) -> str:
        """Name and short hash as infotexts list them."""
        return f"{self.name.replace(':', '').replace(',', '')}: {self.short_hash}"

    def vectors_for(self, key: str) -> torch.Tensor:
        """The vectors for an encoder."""
        return self.parts.get(key, self.parts.get(""))


def read_embedding(path: Path) -> Embedding:
    """Read a file. Raises `UserError` for one that holds something else."""
    file = open_tensors(path)
    if len(file) > _MOST_TENSORS:
        raise UserError("this is not a textual-inversion embedding", where=str(path))
    tensors = {key: file.tensor(key).float() for key in file.shapes() if file.dtype(key).is_floating_point}
    inversion = {key: value for key, value in tensors.items() if key.startswith("string_to_param")}
    if tensors.keys() >= set(SDXL_PARTS):
        parts = {key: tensors[key] for key in SDXL_PARTS}
    elif len(inversion) == 1 or len(tensors) == 1:
        parts = {"": next(iter((inversion or tensors).values()))}
    else:
        raise UserError("this is not a textual-inversion embedding", where=str(path))
    return Embedding(path.stem, path, {key: part.reshape(-1, part.shape[-1]) for key, part in parts.items()})


class Library:
    """Embeddings that fit a model, found by the tokens of their names; they need a `name` and a `path`."""

    def __init__(self, embeddings: Iterable[Any] = (), tokenizer: Any = None) -> None:
        self.embeddings = tuple(embeddings)
        self._by_first: dict[int, list[tuple[list[int], Any]]] = {}
        for embedding in self.embeddings:
            ids = tokenizer.encode(embedding.name)
            if ids:
                self._by_first.setdefault(ids[0], []).append((ids, embedding))
        for entries in self._by_first.values():
            entries.sort(key=lambda entry: len(entry[0]), reverse=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names and files of all embeddings."""
        return tuple(sorted(f"{embedding.name} {embedding.path}" for embedding in self.embeddings))

    def find(self, ids: Sequence[int], position: int) -> tuple[Any, int]:
        """The embedding with the longest name that stands at `position`, and the length of the name in tokens."""
        for name, embedding in self._by_first.get(ids[position], ()):
            if list(ids[position : position + len(name)]) == name:
                return embedding, len(name)
        return None, 0


def load_library(folders: Iterable[Path], tokenizer: object, width: int) -> Library:
    """Every embedding under `folders` whose width fits; files that are no embeddings are passed over."""
    found: dict[str, Embedding] = {}
    for path in embedding_files(folders):
        embedding = _try_read(path) if path.stem not in found else None
        if embedding is not None and embedding.width == width:
            found[embedding.name] = embedding
    return Library(found.values(), tokenizer)


def embedding_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Files under `folders` that may be embeddings, in the order of their names."""
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in SUFFIXES and path.stat().st_size:
                yield path


def _try_read(path: Path) -> Embedding | None:
    try:
        return read_embedding(path)
    except UserError:
        return None
