"""The settings of a training run (`train`), declared once.

Names follow kohya's and diffusers' scripts where they have one. See `fields.py` for what derives from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.fields import BASIC, group, setting
from lib_sdtrain.settings.lengths import Length


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
    prediction_type: str = setting(
        "auto",
        "Prediction type",
        "What the model predicts; auto reads it from the checkpoint and its .yaml.",
        choices=("auto", "epsilon", "v_prediction"),
    )


@dataclass(frozen=True)
class MethodSettings:
    """What is trained."""

    kind: str = setting(
        "full",
        "Method",
        "full: the whole model is trained and a checkpoint written. lora: a small file that is used with the model.",
        choices=("full", "lora"),
        level=BASIC,
    )
    train_unet: bool = setting(True, "Train UNet", "Train the part that draws.")
    train_text_encoder: bool = setting(
        True,
        "Train text encoder",
        "Train the part that reads the prompt too: learns a subject faster, needs more memory.",
        level=BASIC,
    )
    rank: int = setting(
        16,
        "Rank",
        "lora: how much it can learn, and its size. 4 to 32 for a subject, more for a style.",
        minimum=1,
        maximum=1024,
        step=1,
    )
    alpha: float = setting(
        16.0,
        "Alpha",
        "lora: its changes count alpha / rank times. Equal to the rank, the learning rate means the same at any rank.",
        minimum=0.0,
        exclusive_minimum=True,
    )


@dataclass(frozen=True)
class Concept:
    """One thing to learn: pictures, words, and (for prior preservation) its class."""

    name: str = setting("subject", "Name", "Names the concept in the plan and the file.")
    instance_dir: str = setting(
        "",
        "Pictures",
        "Folder with pictures of the subject; 5 to 20 are enough. Sub-folders are read too.",
        level=BASIC,
        kind="folder",
    )
    instance_prompt: str = setting(
        "",
        "Prompt",
        "What the pictures show, with the word that will call the subject: a photo of sks dog. A caption file "
        "(.txt) beside a picture wins; [filewords] is replaced by the caption.",
        level=BASIC,
        kind="text",
    )
    class_dir: str = setting(
        "",
        "Class pictures",
        "Folder of ordinary pictures of the class. Missing ones are made first by the starting model "
        "and kept for the next run.",
        kind="folder",
        default_text="kept with the outputs, one folder a model and prompt",
    )
    class_prompt: str = setting(
        "",
        "Class prompt",
        "The same words without the subject's: a photo of a dog. Given, the class is kept (prior preservation).",
        level=BASIC,
        kind="text",
    )
    num_class_images: int = setting(
        100,
        "Class pictures wanted",
        "How many class pictures to use; made when there are fewer.",
        minimum=1,
        step=1,
        unit="pictures",
        level=BASIC,
    )
    weight: float = setting(
        1.0,
        "Weight",
        "Share of this concept among all, whatever its number of pictures.",
        minimum=0.0,
        exclusive_minimum=True,
    )


@dataclass(frozen=True)
class DataSettings:
    """Pictures and captions."""

    concepts: tuple[Concept, ...] = setting((), "Concepts", "What to learn, one entry a subject.", level=BASIC)
    resolution: str = setting(
        "512",
        "Resolution",
        "Size of the training pictures: 512, or WIDTHxHEIGHT in multiples of 8.",
        unit="pixels",
        level=BASIC,
        default_text="512 (SDXL 1024, toybox 128)",
    )
    resize: str = setting(
        "cover",
        "Resize",
        "cover: fill the size and crop the rest. pad: keep the whole picture on a coloured ground.",
        choices=("cover", "pad"),
    )
    pad_color: str = setting("white", "Pad colour", "Ground for pad, and for transparent pictures.", kind="color")
    random_crop: bool = setting(False, "Random crop", "Crop at random instead of the middle; needs cache_latents none.")
    flip_p: float = setting(
        0.0, "Flip", "Chance to mirror a picture left to right.", minimum=0.0, maximum=1.0, step=0.05
    )
    caption_dropout_rate: float = setting(
        0.0,
        "Caption dropout",
        "Chance to train a picture with an empty caption, which strengthens CFG.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    shuffle_caption: bool = setting(False, "Shuffle caption", "Shuffle the comma-separated tags of each caption.")
    keep_tokens: int = setting(
        0, "Keep tokens", "Leave the first tags in place when shuffling or dropping.", minimum=0, step=1
    )
    tag_dropout_rate: float = setting(
        0.0,
        "Tag dropout",
        "Chance to leave out each tag of a caption.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    cache_latents: str = setting(
        "memory",
        "Cache latents",
        "Encode each picture once and keep the result. disk also serves the next run.",
        choices=("memory", "disk", "none"),
    )
    cache_dir: str = setting(
        "",
        "Cache folder",
        "Where cache_latents disk keeps its files.",
        kind="folder",
        default_text="beside the outputs",
    )


@dataclass(frozen=True)
class TrainGroup:
    """How long and how fast."""

    length: Length = setting(
        Length(1000),
        "Length",
        "How long to train: 1000 (steps), 30 epochs or 100000 samples.",
        level=BASIC,
        minimum=0,
        exclusive_minimum=True,
    )
    batch_size: int = setting(
        1,
        "Batch size",
        "Pictures a micro-step (class pictures come on top).",
        minimum=1,
        step=1,
        unit="pictures",
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Gradient accumulation",
        "Micro-steps an optimiser step: a larger batch in the same memory.",
        minimum=1,
        step=1,
    )
    learning_rate: float = setting(
        1e-6,
        "Learning rate",
        "How far each step goes. Too high ruins the model, too low learns nothing.",
        minimum=0.0,
        level=BASIC,
        default_text="1e-6 (LoRA 1e-4)",
    )
    text_encoder_lr: float | None = setting(
        None,
        "Text encoder learning rate",
        "Off: the same as the learning rate.",
        minimum=0.0,
        default_text="as learning_rate",
    )
    optimizer: str = setting("adamw", "Optimizer", "The rule that turns gradients into steps.", choices=("adamw",))
    optimizer_args: dict[str, Any] = setting(
        {},
        "Optimizer arguments",
        "For adamw: betas, eps, weight_decay.",
        default_text="{}",
    )
    lr_scheduler: str = setting(
        "constant",
        "Schedule",
        "How the learning rate goes on: constant, linear to 0, or cosine to 0.",
        choices=("constant", "linear", "cosine"),
    )
    lr_warmup: Length = setting(Length(0), "Warm-up", "Raise the learning rate from 0 over this length.", minimum=0)
    max_grad_norm: float = setting(1.0, "Clip gradients", "Largest gradient norm; 0 does not clip.", minimum=0.0)
    mixed_precision: str = setting(
        "no",
        "Precision",
        "no: fp32. bf16 and fp16 compute in half precision over fp32 weights.",
        choices=("no", "fp16", "bf16"),
        default_text="no on CPU, fp16 on CUDA",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Compute activations twice to save memory; about a third slower.",
    )
    seed: int = setting(
        0, "Seed", "The same seed and settings give the same file.", minimum=0, maximum=2**63 - 1, step=1
    )


@dataclass(frozen=True)
class LossSettings:
    """What is minimised."""

    prior_loss_weight: float = setting(
        1.0,
        "Prior weight",
        "Weight of the class pictures' loss.",
        minimum=0.0,
        step=0.05,
    )
    prior_reduction: str = setting(
        "sum",
        "Prior reduction",
        "sum: mean over the subject's pictures plus weight times mean over the class's (diffusers). "
        "mean: one weighted mean over all of them (kohya).",
        choices=("sum", "mean"),
    )
    min_snr_gamma: float | None = setting(
        None,
        "Min-SNR gamma",
        "Weigh timesteps by min(SNR, gamma) (Hang et al. 2023); 5 is common.",
        minimum=0.0,
        exclusive_minimum=True,
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Adds one random number a channel to the noise, so that very dark and bright pictures are learnt.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )


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
    )


@dataclass(frozen=True)
class SaveSettings:
    """What is written, where and when."""

    name: str = setting(
        "", "Name", "File name of the result.", kind="text", level=BASIC, default_text="the first concept's name"
    )
    dir: str = setting("", "Folder", "Where checkpoints go.", kind="folder", default_text="the run's checkpoints/")
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
        "How often to write the state that a killed run goes on from.",
        minimum=0,
        exclusive_minimum=True,
    )


@dataclass(frozen=True)
class RunSettings:
    """All settings of `train`."""

    model: ModelSettings = group(ModelSettings, "Model", "What training starts from.")
    data: DataSettings = group(DataSettings, "Data", "Pictures and captions.")
    method: MethodSettings = group(MethodSettings, "Method", "What is trained.")
    train: TrainGroup = group(TrainGroup, "Training", "How long and how fast.")
    loss: LossSettings = group(LossSettings, "Loss", "What is minimised.")
    preview: PreviewSettings = group(PreviewSettings, "Previews", "Pictures drawn while training.")
    save: SaveSettings = group(SaveSettings, "Saving", "What is written, where and when.")
