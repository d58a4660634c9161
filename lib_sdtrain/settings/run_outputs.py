"""The settings of what a run shows and leaves behind: `preview`, `validation`, `save` and `log`."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.applies import when
from lib_sdtrain.settings.fields import BASIC, setting
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.run_embedding import WITH_WORD
from lib_sdtrain.settings.run_method import FULL_ONLY

HELD_OUT = (when("validation.dir") | when("validation.fraction") | when("validation.count"),)
SDTRAIN, WEBUI = "sdtrain", "webui"
"""Who draws pictures for a run."""
USE, KEEP, DROP = "use", "keep", "drop"
"""What becomes of the moving average in a file."""


@dataclass(frozen=True)
class PreviewSettings:
    """Pictures drawn while training."""

    prompts: tuple[Any, ...] = setting(
        (),
        "Previews",
        "Plain prompts, WebUI infotexts, or requests as the WebUI's API takes them.",
        kind="requests",
        level=BASIC,
    )
    every: Length | None = setting(
        None,
        "Preview every",
        "How often to draw them; step 0 and the end always.",
        minimum=0,
        exclusive_minimum=True,
        level=BASIC,
        applies=(when("preview.prompts"),),
    )
    drawn_by: str = setting(
        SDTRAIN,
        "Previews drawn by",
        "sdtrain: our own sampler; the WebUI's model stays out of the way. webui: the WebUI's own txt2img with all its "
        "samplers, upscalers and extensions, on the trained weights; only in the WebUI, while the checkpoint that is "
        "trained is its loaded one. Takes a few seconds more each time; a LoRA is shown as if baked in, and the VAE is "
        "the WebUI's.",
        choices=(SDTRAIN, WEBUI),
        applies=(when("preview.prompts"),),
    )
    seed: int | None = setting(
        None,
        "Preview seed",
        "The seed of the first preview, which the others follow, where they name none of their own. The same in all "
        "stages.",
        minimum=0,
        maximum=2**63 - 1,
        step=1,
        default_text="as the training's",
        applies=(when("preview.prompts"),),
    )


@dataclass(frozen=True)
class ValidationSettings:
    """The loss on pictures that are not trained on."""

    dir: str = setting(
        "",
        "Validation pictures",
        "Folder of pictures that are not trained on, with captions as training pictures have them. A sub-folder named "
        "as a concept has that concept's prompt, all else the first one's. A metadata file of the concept's file's "
        "name in this folder tells of these pictures; without one the concept's does, by their names.",
        kind="folder",
    )
    fraction: float = setting(
        0.0,
        "Validation share",
        "Instead of a folder: keep this share of each concept's pictures from training.",
        minimum=0.0,
        maximum=0.5,
        step=0.01,
    )
    count: int = setting(
        0,
        "Validation count",
        "Instead of a share: keep so many pictures from training in all, of each concept in proportion to how many it "
        "has, at least one.",
        minimum=0,
        step=1,
        unit="pictures",
    )
    every: Length | None = setting(
        None,
        "Validate every",
        "How often, besides the beginning and the end.",
        minimum=0,
        exclusive_minimum=True,
        applies=HELD_OUT,
    )
    timesteps: int = setting(
        8, "Validation timesteps", "Each picture is asked at this many, evenly spread.", minimum=1, maximum=100, step=1,
        applies=HELD_OUT,
    )
    pictures: int = setting(
        64,
        "Pictures for the stable loss",
        "The training loss is measured too on this many fixed training pictures, with fixed noise.",
        minimum=0,
        step=1,
        unit="pictures",
        applies=HELD_OUT,
    )
    seed: int | None = setting(
        None,
        "Validation seed",
        "The seed of the noise that the pictures are asked with. The same in all stages.",
        minimum=0,
        maximum=2**63 - 1,
        step=1,
        default_text="as the training's",
        applies=HELD_OUT,
    )


@dataclass(frozen=True)
class LogSettings:
    """Where the curves go, besides the tab and events.jsonl."""

    tensorboard: bool = setting(
        False, "TensorBoard", "Write the curves for TensorBoard into the run's tensorboard folder; needs its package."
    )
    wandb: bool = setting(
        False, "Weights & Biases",
        "Send the curves to Weights & Biases, or with WANDB_MODE=offline keep them; needs its package.",
    )


@dataclass(frozen=True)
class SaveSettings:
    """What is written, where and when."""

    name: str = setting(
        "", "Name", "File name of the result.", kind="text", level=BASIC, default_text="the first concept's name"
    )
    dir: str = setting("", "Folder", "Where checkpoints go.", kind="folder", default_text="the run's checkpoints/")
    embedding_dir: str = setting(
        "", "Embedding folder", "Where a trained embedding goes.", kind="folder", default_text="the run's embeddings/",
        applies=WITH_WORD,
    )
    every: Length | None = setting(
        None,
        "Save every",
        "Write a checkpoint this often, besides the one at the end.",
        minimum=0,
        exclusive_minimum=True,
    )
    state_every: Length | None = setting(
        Length(500),
        "Save state every",
        "How often to write the state that a killed run goes on from, while training goes on. It is copied for that in "
        "main memory, where there is room for it.",
        minimum=0,
        exclusive_minimum=True,
    )
    dtype: str = setting(
        "parent",
        "Number format",
        "Of what is written. parent: as in the checkpoint that was trained, a LoRA in fp16. Published files are fp16; "
        "fp32 is for training on.",
        choices=("parent", "fp16", "bf16", "fp32"),
    )
    vae: bool = setting(
        True, "Save VAE", "Off: the file is smaller, and is used with a VAE of its own.",
        applies=FULL_ONLY,
    )
    text_encoder: bool = setting(
        True, "Save text encoder", "Off: only the UNet (and the VAE).",
        applies=FULL_ONLY,
    )
    ema: str = setting(
        "use",
        "Saved average",
        "With an EMA decay. use: the average is the result. keep: the last weights are, the UNet's average goes with "
        "them (model_ema), to train on from. drop: the last weights alone.",
        choices=(USE, KEEP, DROP),
    )
    also: tuple[Any, ...] = setting(
        (),
        "Further forms",
        "Forms of the result that are written beside it at each save: a suffix for the file's name, and what differs "
        "of dtype, vae, text_encoder and ema.",
        kind="overrides",
        example='{"suffix": "_ema", "dtype": "fp32", "ema": "keep"}',
        applies=FULL_ONLY,
    )
