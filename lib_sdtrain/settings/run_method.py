"""The settings of what a run trains, how, and towards what: `method`, `train` and `loss`."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_sdtrain.settings.applies import when
from lib_sdtrain.settings.fields import BASIC, setting
from lib_sdtrain.settings.lengths import Length

FULL, LORA, EMBEDDING = "full", "lora", "embedding"
FULL_ONLY, LORA_ONLY = (when("method.kind", FULL),), (when("method.kind", LORA),)
FULL_OR_LORA = when("method.kind", FULL, LORA)
WHOLE_TEXT = (*FULL_ONLY, when("method.train_text_encoder") | when("method.train_text_encoder_2"))
HUBER = (when("loss.kind", "huber", "smooth_l1"),)
WITH_EMA = (when("ema.decay"),)
WITH_POWER = (*WITH_EMA, when("ema.warm_up", "power"))


@dataclass(frozen=True)
class MethodSettings:
    """What is trained."""

    kind: str = setting(
        FULL,
        "Method",
        "full: the whole model is trained and a checkpoint written. lora: a small file that is used with the model. "
        "embedding: a word of one's own for what the model can draw already, a tiny file.",
        choices=(FULL, LORA, EMBEDDING),
        level=BASIC,
    )
    train_unet: bool = setting(
        True, "Train UNet", "Train the part that draws.",
        applies=(FULL_OR_LORA,),
    )
    train_text_encoder: bool = setting(
        True,
        "Train text encoder",
        "Train the part that reads the prompt too: learns a subject faster, needs more memory.",
        level=BASIC,
        applies=(FULL_OR_LORA,),
    )
    train_text_encoder_2: bool = setting(
        False, "Train second text encoder", "SDXL has two; most fine-tunes leave the second as it is.",
        applies=(FULL_OR_LORA,),
    )
    rank: int = setting(
        16,
        "Rank",
        "lora: how much it can learn, and its size. 4 to 32 for a subject, more for a style.",
        minimum=1,
        maximum=1024,
        step=1,
        applies=LORA_ONLY,
    )
    alpha: float = setting(
        16.0,
        "Alpha",
        "lora: its changes count alpha / rank times. Equal to the rank, the learning rate means the same at any rank.",
        minimum=0.0,
        exclusive_minimum=True,
        applies=LORA_ONLY,
    )
    conv_rank: int | None = setting(
        None,
        "Convolution rank",
        "lora: train the convolutions of the UNet too (LoCon), with this rank. Off: only its transformers.",
        minimum=1,
        maximum=1024,
        step=1,
        applies=LORA_ONLY,
    )
    conv_alpha: float | None = setting(
        None, "Convolution alpha", "lora: as alpha, for the convolutions.", minimum=0.0, exclusive_minimum=True,
        default_text="as conv_rank",
        applies=(*LORA_ONLY, when("method.conv_rank")),
    )
    block_weights: str = setting(
        "",
        "Block weights",
        "lora: multiplies the learning rate of each block; 0 leaves the block out. 26 numbers as for merging (SDXL: "
        "20), of which BASE is the text encoders, or the name of one of the merge's presets.",
        default_text="all 1",
        applies=LORA_ONLY,
    )

    def trains(self, part: str) -> bool:
        """Whether a part of the model is trained: `unet`, `text_encoder` or `text_encoder_2`."""
        return getattr(self, f"train_{part}")


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
        default_text="1e-6 (LoRA 1e-4, prodigy 1)",
    )
    text_encoder_lr: float | None = setting(
        None,
        "Text encoder learning rate",
        "Off: the same as the learning rate.",
        minimum=0.0,
        default_text="as learning_rate",
        applies=(FULL_OR_LORA, when("method.train_text_encoder")),
    )
    text_encoder_2_lr: float | None = setting(
        None,
        "Second text encoder learning rate",
        "SDXL's second text encoder. Off: the same as the learning rate.",
        minimum=0.0,
        default_text="as learning_rate",
        applies=(FULL_OR_LORA, when("method.train_text_encoder_2")),
    )
    token_embedding_lr: float | None = setting(
        None,
        "Token embedding learning rate",
        "full: a rate of its own for the tables that hold a vector for each word, without weight decay, so that words "
        "of no caption stay as they are. High, with a low rate for the rest of the text encoder: a new name is learnt "
        "and the language kept. Off: the same as their text encoder.",
        minimum=0.0,
        default_text="as the text encoder's",
        applies=WHOLE_TEXT,
    )
    token_embedding_words: str = setting(
        "",
        "Token embedding of",
        "full: the words whose vectors are trained, with commas between; all others keep theirs. Usually the name that "
        "calls the subject, as in: sks.",
        default_text="all words of the captions",
        applies=WHOLE_TEXT,
    )
    token_embedding_init: str = setting(
        "",
        "They begin as",
        "token_embedding_words: what their vectors begin as, the mean of these words' vectors. A word that the model "
        "listens to: where it does not know the name at all, much time passes until it finds one. Off: as they are.",
        default_text="as they are",
        applies=(*WHOLE_TEXT, when("train.token_embedding_words")),
    )
    scale_lr: str = setting(
        "none",
        "Scale learning rates",
        "Multiply all learning rates by the samples a step (linear), or by their root (sqrt). pictures: by the number "
        "of the run's pictures, without class pictures and those that are left out or held out, each counted once.",
        choices=("none", "linear", "sqrt", "pictures"),
    )
    optimizer: str = setting(
        "adamw",
        "Optimizer",
        "The rule that turns gradients into steps. adamw8bit: in a quarter of adamw's memory. lion: steps of one size, "
        "at a tenth of the rate. prodigy finds its rate itself. schedule_free: averages instead of a schedule. "
        "Or a class of torch (RAdam) or of any package (bitsandbytes.optim.AdamW8bit).",
        choices=("adamw", "adamw8bit", "lion", "prodigy", "schedule_free", "adafactor"),
        open_choices=True,
    )
    optimizer_args: dict[str, Any] = setting(
        {},
        "Optimizer arguments",
        "As the optimizer has them; for adamw: betas, eps, weight_decay.",
        default_text="{}",
    )
    lr_scheduler: str = setting(
        "constant",
        "Schedule",
        "How the learning rate goes on after the warm-up, as in diffusers: constant; to 0 by linear, cosine, "
        "cosine_with_restarts; to lr_end by polynomial; in steps by piecewise_constant.",
        choices=("constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "piecewise_constant"),
    )
    lr_scheduler_args: dict[str, Any] = setting(
        {},
        "Schedule arguments",
        "cosine, cosine_with_restarts: num_cycles. polynomial: power, lr_end. piecewise_constant: step_rules, as in "
        "1:1000,0.1 (all of the rate for 1000 steps, then a tenth).",
        default_text="{}",
        applies=(when("train.lr_scheduler", "cosine", "cosine_with_restarts", "polynomial", "piecewise_constant"),),
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
    grad_scaler_growth: Length = setting(
        Length(2000),
        "Loss scale growth",
        "fp16: double the loss scale after this long without an overflow. It starts at 65536.",
        minimum=0,
        exclusive_minimum=True,
        applies=(when("train.mixed_precision", "fp16"),),
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Compute activations twice to save memory; about a third slower.",
    )
    prepared_convolutions: bool = setting(
        True,
        "Prepared convolutions",
        "On a CPU in fp32, unless activations are computed twice: weights that stay are prepared for a faster way. "
        "Those of the VAE while pictures are encoded, a quarter sooner; those of a UNet that is not trained itself: a "
        "step of a LoRA takes a tenth less, for 1 GB of memory (SD1.5 at 256 pixels).",
        applies=(when("train.mixed_precision", "no"),),
    )
    step_in_backward: bool = setting(
        False,
        "Step in backward",
        "Use each gradient at once and let it go: saves nearly as much memory as the trained weights take, at nearly "
        "the same speed and with the same result. To be clipped, gradients are computed twice for it: a step takes "
        "1.4 to 1.7 times as long, unless max_grad_norm is 0. Not with accumulation, fp16 or prodigy.",
    )
    optimizer_on_cpu: bool = setting(
        False,
        "Moments in main memory",
        "On a GPU: what the optimizer remembers of each weight lies in main memory and is on the card only for its "
        "step, which takes longer. SD1.5 in full takes 7 GB less of the card, and as much main memory. Not with "
        "prodigy.",
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
    kind: str = setting(
        "mse",
        "Error",
        "How far off an answer is. mse: squared. l1: absolute. huber, smooth_l1: squared where small, absolute where "
        "large, so that odd pictures count less.",
        choices=("mse", "l1", "huber", "smooth_l1"),
    )
    huber_c: float = setting(
        0.1, "Huber c", "huber, smooth_l1: where small ends.", minimum=0.0, exclusive_minimum=True,
        applies=HUBER,
    )
    huber_schedule: str = setting(
        "snr",
        "Huber schedule",
        "huber, smooth_l1: c over the timesteps. snr: large where there is little noise. exponential: 1 at step 0, c "
        "at the last. constant: always c.",
        choices=("snr", "exponential", "constant"),
        applies=HUBER,
    )
    min_snr_gamma: float | None = setting(
        None,
        "Min-SNR gamma",
        "Weigh timesteps by min(SNR, gamma) (Hang et al. 2023); 5 is common.",
        minimum=0.0,
        exclusive_minimum=True,
    )
    debiased_estimation: bool = setting(
        False,
        "Debiased estimation",
        "Weigh timesteps by 1 / sqrt(SNR), or 1 / (SNR + 1) for v_prediction (Yu et al. 2023).",
    )
    scale_v_pred_loss_like_noise_pred: bool = setting(
        False,
        "Weigh v as noise",
        "v_prediction: weigh timesteps by SNR / (SNR + 1), as if the noise were predicted.",
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Adds one random number a channel to the noise, so that very dark and bright pictures are learnt.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    noise_offset_random_strength: bool = setting(
        False, "Random noise offset", "Take a random part of the noise offset, anew for every sample.",
        applies=(when("loss.noise_offset"),),
    )
    adaptive_noise_scale: float | None = setting(
        None, "Adaptive noise scale", "Times a channel's mean, added to its noise offset; may be below 0."
    )
    multires_noise_iterations: int = setting(
        0, "Pyramid noise levels", "Adds noise of coarser resolutions; 6 to 10 levels are common, 0 is none.",
        minimum=0, maximum=16, step=1,
    )
    multires_noise_discount: float = setting(
        0.3, "Pyramid noise discount", "How much each coarser level counts of the one before.", minimum=0.0,
        maximum=1.0, step=0.05,
        applies=(when("loss.multires_noise_iterations"),),
    )
    input_perturbation: float = setting(
        0.0,
        "Input perturbation",
        "Adds this much further noise to the latents that the target does not know of (Ning et al. 2023); 0.1 there.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    masked: bool = setting(
        False,
        "Masked loss",
        "Weigh each part of a picture by its mask: a file, transparency, or boxes. See data.concepts.N.mask_dir.",
    )
    unmasked_weight: float = setting(
        0.0,
        "Weight of what is masked out",
        "masked: how much the rest of a picture still counts.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        applies=(when("loss.masked"),),
    )



@dataclass(frozen=True)
class EmaSettings:
    """The moving average of the weights."""

    decay: float | None = setting(
        None,
        "EMA decay",
        "Keeps an average of the weights, of which every step this part stays: 0.995 for thousands of steps, 0.9999 "
        "for many more. Save says whether it or the last weights are the result.",
        minimum=0.0,
        maximum=1.0,
    )
    warm_up: str = setting(
        "ldm",
        "EMA warm-up",
        "Lets the average follow faster in the beginning. ldm: at most (1 + n) / (10 + n) stays at update n. power: at "
        "most 1 - (1 + n / inv_gamma) ^ -power (diffusers). none: always the decay.",
        choices=("ldm", "power", "none"),
        applies=WITH_EMA,
    )
    power: float = setting(
        2 / 3, "EMA power", "For warm_up power; 2/3 for long runs, 3/4 for shorter ones.", minimum=0.0, maximum=1.0,
        default_text="2/3",
        applies=WITH_POWER,
    )
    inv_gamma: float = setting(
        1.0, "EMA inverse gamma", "For warm_up power.", minimum=0.0, exclusive_minimum=True,
        applies=WITH_POWER,
    )
    after: Length = setting(
        Length(0), "EMA after", "Until then the average is the weights themselves.", minimum=0,
        applies=WITH_EMA,
    )
    every: Length = setting(
        Length(1), "EMA every", "How often the average takes the weights in.", minimum=0, exclusive_minimum=True,
        applies=WITH_EMA,
    )
    on_cpu: bool = setting(
        False, "EMA on CPU", "Keep the average in main memory: saves GPU memory, costs a little time.",
        applies=WITH_EMA,
    )
