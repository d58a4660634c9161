"""The vectors that words come into a text encoder as: trained at a rate of their own, all of them or a few words'.

A new name has its own row of the token embedding. Where that row alone moves fast, the name is learnt before the rest
of the model has found a way without it, and every other word keeps its vector. As in Custom Diffusion (Kumari et al.
2023), which sets the gradients of all rows but the new words' to 0.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import Problems
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import FULL, TrainGroup

RATE, WORDS, FIRST = (f"train.token_embedding_{name}" for name in ("lr", "words", "init"))


def stands_alone(train: TrainGroup) -> bool:
    """Whether the token embedding is a group of its own to the optimizer."""
    return train.token_embedding_lr is not None or bool(chosen_words(train))


def chosen_words(train: TrainGroup) -> list[str]:
    """The words whose vectors alone are trained; none: all."""
    return [word.strip() for word in train.token_embedding_words.split(",") if word.strip()]


def token_table(encoder: nn.Module) -> nn.Parameter:
    """The token embedding (vocabulary, width) of a text encoder, its first parameter."""
    return encoder.text_model.embeddings.token_embedding.weight


def rows_of(words: Iterable[str], tokenizer: Tokenizer) -> list[int]:
    """The rows of all tokens that words are split into, sorted."""
    return sorted({token for word in words for token in tokenizer.encode(word)})


def prepare_vectors(settings: RunSettings, model: LoadedModel, parts: Iterable[str]) -> None:
    """Where words are chosen: begin their vectors as the settings say, and let no gradient reach all others'.

    `parts` names what is trained of the model. A beginning is the mean of the vectors of other words' tokens, as
    textual inversion begins with one word's (Gal et al. 2022).
    """
    words, first = chosen_words(settings.train), settings.train.token_embedding_init
    for name, encoder, tokenizer in zip(TEXT_ENCODERS, model.text_encoders, model.tokenizers, strict=False):
        if not words or name not in parts:
            continue
        table, rows = token_table(encoder), rows_of(words, tokenizer)
        if first.strip():
            with torch.no_grad():
                table[rows] = table[tokenizer.encode(first)].mean(0)
        table.register_hook(_only(rows))


def _only(rows: list[int]) -> Callable[[Tensor], Tensor]:
    def kept(gradient: Tensor) -> Tensor:
        only = torch.zeros_like(gradient)
        only[rows] = gradient[rows]
        return only

    return kept


def check_token_vectors(settings: RunSettings, problems: Problems) -> None:
    """Add it to `problems` when the token embedding has settings of its own but is not trained."""
    method = settings.method
    trained = method.kind == FULL and (method.train_text_encoder or method.train_text_encoder_2)
    if stands_alone(settings.train) and not trained:
        problems.add(
            "no text encoder is trained as a whole, so its token embedding is not trained either",
            where=WORDS if settings.train.token_embedding_lr is None else RATE,
            fix="leave it out, or choose method full and set train_text_encoder to true",
        )
    if settings.train.token_embedding_init.strip() and not chosen_words(settings.train):
        problems.add("it is not said which words begin so", where=FIRST, fix=f"name them in {WORDS}, or leave it out")


def check_words_said(settings: RunSettings, texts: Iterable[str], problems: Problems) -> None:
    """Add to `problems` each chosen word that no text of the training has: its vector would learn nothing."""
    words = chosen_words(settings.train)
    left = {word: re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in words}
    for text in texts if left else ():
        left = {word: pattern for word, pattern in left.items() if not pattern.search(text)}
    for word in left:
        problems.add(
            f"no prompt and no caption says {word!r}, so its vector would learn nothing", where=WORDS,
            fix="write the word that calls the subject, as in its prompt",
        )
