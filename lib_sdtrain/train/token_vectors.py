"""The vectors that words come into a text encoder as: trained at a rate of their own, all of them or a few words'.

A new name has its own row of the token embedding. Where that row alone moves fast, the name is learnt before the rest
of the model has found a way without it, and every other word keeps its vector. As in Custom Diffusion (Kumari et al.
2023), which sets the gradients of all rows but the new words' to 0.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import Problems
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import TEXT_ENCODERS
from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import FULL, TrainGroup

RATE, WORDS = "train.token_embedding_lr", "train.token_embedding_words"


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


def hold_other_words(settings: RunSettings, model: LoadedModel, parts: Iterable[str]) -> None:
    """From now on no gradient reaches the vectors of words that are not chosen, where some are.

    `parts` names what is trained of the model.
    """
    words = chosen_words(settings.train)
    for name, encoder, tokenizer in zip(TEXT_ENCODERS, model.text_encoders, model.tokenizers, strict=False):
        if words and name in parts:
            token_table(encoder).register_hook(_only(rows_of(words, tokenizer)))


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


def check_words_said(settings: RunSettings, texts: Iterable[str], problems: Problems) -> None:
    """Add to `problems` each chosen word that no text of the training has: its vector would learn nothing."""
    left = {word: word.lower() for word in chosen_words(settings.train)}
    for text in texts if left else ():
        said = text.lower()
        left = {word: low for word, low in left.items() if low not in said}
    for word in left:
        problems.add(
            f"no prompt and no caption says {word!r}, so its vector would learn nothing", where=WORDS,
            fix="write the word that calls the subject, as in its prompt",
        )
