"""The settings of a word of one's own: `embedding`."""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.settings.applies import when
from lib_sdtrain.settings.fields import setting
from lib_sdtrain.settings.run_method import EMBEDDING

WITH_WORD = (when("embedding.name") | when("method.kind", EMBEDDING),)


@dataclass(frozen=True)
class EmbeddingSettings:
    """A word that is learnt as vectors (textual inversion), alone or beside the model."""

    name: str = setting(
        "",
        "Word",
        "What captions and prompts call it, and the name of its file. Needed by the method embedding; with the other "
        "methods it is learnt beside them.",
        kind="text",
        default_text="none",
    )
    vectors: int = setting(
        1,
        "Vectors",
        "How many tokens it takes up. More learn more, and leave less room for other words.",
        minimum=1,
        maximum=75,
        step=1,
        applies=WITH_WORD,
    )
    init_words: str = setting(
        "*", "Begin as", "Words whose meaning it begins with; what the pictures show helps, as in: cat.", kind="text",
        applies=WITH_WORD,
    )
    learning_rate: float = setting(
        5e-3, "Embedding learning rate", "How far each step moves it.", minimum=0.0, default_text="0.005 (prodigy 1)",
        applies=WITH_WORD,
    )
