"""The settings of a training run (`train`), declared once.

Names follow kohya's and diffusers' scripts where they have one. See `fields.py` for what derives from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.applies import when
from lib_sdtrain.settings.fields import BASIC, group, setting
from lib_sdtrain.settings.run_data import Concept, DataSettings
from lib_sdtrain.settings.run_embedding import EmbeddingSettings
from lib_sdtrain.settings.run_method import EmaSettings, LossSettings, MethodSettings, TrainGroup
from lib_sdtrain.settings.run_outputs import LogSettings, PreviewSettings, SaveSettings, ValidationSettings

__all__ = ["Concept", "DataSettings", "ModelSettings", "RunSettings"]


@dataclass(frozen=True)
class ModelSettings:
    """What training starts from."""

    checkpoint: str = setting(
        "toybox",
        "Checkpoint",
        "The model to train: a checkpoint of the WebUI, a file, or toybox (the built-in small model).",
        level=BASIC,
        kind="checkpoint",
        default_text="the loaded one; toybox standalone",
    )
    vae: str = setting(
        "",
        "VAE",
        "A VAE file to encode the pictures with, for checkpoints that are used with one of their own.",
        kind="vae",
        default_text="the checkpoint's",
    )
    clip_skip: int = setting(
        1,
        "Clip skip",
        "Stop the text encoder this many layers early, as the WebUI's setting of the same name. "
        "2 for most anime models. No effect on SD2 and SDXL.",
        minimum=1,
        maximum=12,
        step=1,
        unit="layers",
    )
    max_token_length: str = setting(
        "75",
        "Longest prompt",
        "Tokens of a caption that count. 150 and 225: longer ones are read in chunks of 75; a batch has as many "
        "chunks as its longest caption.",
        choices=("75", "150", "225"),
        unit="tokens",
    )
    long_prompts: str = setting(
        "webui",
        "Form of long prompts",
        "webui: as the WebUI reads them, each chunk with its own start and end. kohya: one start and one end, always "
        "the whole length.",
        choices=("webui", "kohya"),
        applies=(when("model.max_token_length", "150", "225"),),
    )
    prediction_type: str = setting(
        "auto",
        "Prediction type",
        "What the model predicts; auto reads it from the checkpoint and its .yaml.",
        choices=("auto", "epsilon", "v_prediction"),
    )
    zero_terminal_snr: bool = setting(
        False,
        "Zero terminal SNR",
        "Rescale the noise schedule so that its last step is pure noise (Lin et al. 2023), for very dark and very "
        "bright pictures. Needs v_prediction. A checkpoint that is marked so is always trained so.",
    )
    embeddings_dir: str = setting(
        "",
        "Embeddings",
        "Folder of embeddings that captions and previews may name. Without it their names are plain words.",
        kind="folder",
        default_text="none",
    )
    inpainting_mask: str = setting(
        "mixed",
        "Inpainting mask",
        "What inpainting models are trained to fill in. shapes: a random rectangle or ellipse. whole: the whole "
        "picture. mixed: the whole of every fourth, else shapes, as the published models were made.",
        choices=("mixed", "shapes", "whole"),
    )


@dataclass(frozen=True)
class RunSettings:
    """All settings of `train`."""

    model: ModelSettings = group(ModelSettings, "Model", "What training starts from.")
    data: DataSettings = group(DataSettings, "Data", "Pictures and captions.")
    method: MethodSettings = group(MethodSettings, "Method", "What is trained.")
    embedding: EmbeddingSettings = group(
        EmbeddingSettings, "Embedding", "A word of one's own, learnt as vectors (textual inversion)."
    )
    train: TrainGroup = group(TrainGroup, "Training", "How long and how fast.")
    loss: LossSettings = group(LossSettings, "Loss", "What is minimised.")
    ema: EmaSettings = group(EmaSettings, "Moving average", "A second, steadier set of the trained weights (EMA).")
    preview: PreviewSettings = group(PreviewSettings, "Previews", "Pictures drawn while training.")
    validation: ValidationSettings = group(
        ValidationSettings, "Validation", "The loss on pictures that are not trained on. Rises when too much is learnt."
    )
    save: SaveSettings = group(SaveSettings, "Saving", "What is written, where and when.")
    log: LogSettings = group(LogSettings, "Logging", "Where the curves go, besides the tab and events.jsonl.")
    stages: tuple[Any, ...] = setting(
        (),
        "Further stages",
        "Trainings that follow, each from the weights of the one before: what each changes of the settings before it, "
        "as in data.resolution: 768.",
        kind="overrides",
        example='{"data.resolution": 768, "train.length": "10 epochs"}',
    )

    def seed_of(self, part: PreviewSettings | ValidationSettings) -> int:
        """The seed of the previews or of the validation: that of the training where they have none of their own."""
        return self.train.seed if part.seed is None else part.seed
