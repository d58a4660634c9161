"""Textual inversion (Gal et al. 2022): words that captions may name and that stand for vectors in place of tokens.

Some are the user's, read from a folder and left as they are; one may be trained. While training, each vector has an id
beyond the tokenizer's vocabulary, so that a caption stays a row of ids.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.places import is_dir
from lib_sdtrain.sample.embeddings import SDXL_PARTS, Embedding, Library, embedding_files, load_library
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_embedding import EmbeddingSettings
from lib_sdtrain.settings.run_method import EMBEDDING

FILE_KEYS = dict(zip(TEXT_ENCODERS, SDXL_PARTS, strict=True))
"""What SDXL's two parts are called in a file; other families' only one stands under ``."""

NONE = EmbeddingSettings()
LONGEST_NAME = 160
"""Bytes; a step and a suffix come behind it."""


@dataclass(frozen=True)
class Word:
    """A name in captions and the ids that stand in its place."""

    name: str
    path: Path
    ids: tuple[int, ...]

    @property
    def vectors(self) -> int:
        """How many tokens it takes up."""
        return len(self.ids)


class Inversions:
    """What captions may name besides plain words. `trained`: the vectors (n, width) by text encoder, if any."""

    def __init__(
        self, model: LoadedModel, embeddings: Sequence[Embedding] = (), chosen: EmbeddingSettings = NONE
    ) -> None:
        self.encoders = TEXT_ENCODERS[: len(model.text_encoders)]
        self.name = chosen.name
        self.embeddings = tuple(embedding for embedding in embeddings if embedding.name != chosen.name)
        self.trained = initial_vectors(model, chosen) if chosen.name else None
        self.fixed = {encoder: self._fixed(encoder) for encoder in self.encoders}
        first = model.family.text[0].vocab_size
        self.library = Library(words_of(self.embeddings, chosen, first), model.tokenizers[0])

    def _fixed(self, encoder: str) -> list[Tensor]:
        return [embedding.vectors_for(FILE_KEYS[encoder]).float() for embedding in self.embeddings]

    def vectors(self, encoder: str, device: torch.device) -> Tensor | None:
        """All vectors (n, width) in the order of their ids; None where there are none."""
        rows = list(self.fixed[encoder])
        if self.trained is not None:
            rows.append(self.trained[encoder])
        return torch.cat([row.to(device) for row in rows]) if rows else None

    def shown(self) -> tuple[Embedding, ...]:
        """All of them with the vectors as they are now, to draw with."""
        if self.trained is None:
            return self.embeddings
        return (*self.embeddings, Embedding(self.name, None, file_tensors(self.trained)))


def words_of(embeddings: Iterable[Embedding], chosen: EmbeddingSettings, first: int) -> Iterator[Word]:
    """The words that captions may name, `chosen` last, with ids from `first` on."""
    sizes = [(embedding.name, embedding.path, embedding.vectors) for embedding in embeddings]
    if chosen.name:
        sizes = [size for size in sizes if size[0] != chosen.name] + [(chosen.name, Path(), chosen.vectors)]
    for name, path, count in sizes:
        yield Word(name, path, tuple(range(first, first + count)))
        first += count


def library_of(settings: RunSettings, family: Family, tokenizer: Tokenizer) -> Library:
    """The words that captions of a run may name, told without its model."""
    found = load_library(folders_of(settings), tokenizer, sum(config.width for config in family.text))
    return Library(words_of(found.embeddings, settings.embedding, family.text[0].vocab_size), tokenizer)


def inversions_of(settings: RunSettings, model: LoadedModel) -> Inversions:
    """The embeddings of a run. Raises `UserError` when the folder of embeddings is none."""
    width = sum(config.width for config in model.family.text)
    found = load_library(folders_of(settings), model.tokenizers[0], width)
    return Inversions(model, found.embeddings, settings.embedding)


def folders_of(settings: RunSettings) -> tuple[Path, ...]:
    """Where the user's embeddings are. Raises `UserError` when there is no such folder."""
    if not settings.model.embeddings_dir:
        return ()
    folder = Path(settings.model.embeddings_dir).expanduser()
    if not is_dir(folder):
        raise UserError(f"no such folder: {folder}", where="model.embeddings_dir", fix="check the path")
    return (folder,)


def named_files(settings: RunSettings, texts: Iterable[str]) -> list[Path]:
    """The user's embeddings that some text names."""
    files = list(embedding_files(folders_of(settings)))
    words = "\n".join(texts).lower() if files else ""
    return [path for path in files if path.stem.lower() in words]


def initial_vectors(model: LoadedModel, chosen: EmbeddingSettings) -> nn.ParameterDict:
    """The vectors that training begins with, by text encoder: those of the words' tokens, spread over them.

    Vector i of n begins as token i * m // n of the words' m tokens, as in AUTOMATIC1111 WebUI 1.10.1.
    """
    ids = model.tokenizers[0].encode(chosen.init_words) or model.tokenizers[0].encode("*")
    spread = [ids[index * len(ids) // chosen.vectors] for index in range(chosen.vectors)]
    return nn.ParameterDict({
        name: encoder.text_model.embeddings.token_embedding.weight[spread].detach().float().clone()
        for name, encoder in zip(TEXT_ENCODERS, model.text_encoders, strict=False)
    })


def file_tensors(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Vectors by text encoder -> as files name them."""
    if len(vectors) == 1:
        return {"": next(iter(vectors.values())).detach()}
    return {FILE_KEYS[name]: value.detach() for name, value in vectors.items()}


def check_embedding(settings: RunSettings, problems: Problems) -> None:
    """Add contradictions to `problems`."""
    name = settings.embedding.name
    if settings.method.kind == EMBEDDING and not name:
        problems.add("the word that is learnt has no name", where="embedding.name", fix="give it one, as in: my-cat")
    if name != name.strip() or any(character in name for character in '/\\:*?"<>|,()[]'):
        problems.add(
            f"{name!r} cannot be both a word and a file's name", where="embedding.name",
            fix="use letters, digits and hyphens",
        )
    if len(name.encode()) > LONGEST_NAME:
        problems.add(
            "the word is too long for a file's name", where="embedding.name", fix=f"at most {LONGEST_NAME} letters"
        )
    try:
        folders_of(settings)
    except UserError as error:
        problems.absorb(error)


def check_named(settings: RunSettings, texts: Iterable[str], problems: Problems) -> None:
    """Add it to `problems` when no text of the training names the word that is trained: it would learn nothing."""
    name = settings.embedding.name
    if name and not any(name.lower() in text.lower() for text in texts):
        problems.add(
            f"no prompt and no caption says {name!r}, so it would learn nothing", where="embedding.name",
            fix=f"write it into the concept's prompt, as in: a photo of {name}",
        )
