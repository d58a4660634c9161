"""What is asked of a sampler: the WebUI's txt2img request, declared once.

`SampleRequest` has the fields of `/sdapi/v1/txt2img` by their own names; `SampleOptions` has those of the WebUI's
settings that change a picture, by the names that `override_settings` uses. Four of them that people set all the
time stand in the request itself, see `OPTION_FIELDS`.
"""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.settings.fields import BASIC, group, setting

RANDOM_SEED_END = 4294967294
SAME = "Use same "
EMPHASIS = ("Original", "No norm", "Ignore", "None")

OPTION_FIELDS = {
    "CLIP_stop_at_last_layers": "clip_skip",
    "eta_noise_seed_delta": "ensd",
    "randn_source": "randn_source",
    "emphasis": "emphasis",
}
"""The WebUI's settings that are fields of the request, by the WebUI's names."""


@dataclass(frozen=True)
class SampleOptions:
    """Settings of the WebUI that change pictures, by the WebUI's own names (pass them as `override_settings`)."""

    sd_model_checkpoint: str | None = setting(
        None, "Checkpoint", "The checkpoint to use instead of the given one.", kind="checkpoint",
        default_text="as given",
    )
    sd_vae: str = setting(
        "Automatic", "VAE", "Automatic: a VAE named like the checkpoint, else its own. None: its own. Or a file.",
        kind="vae",
    )
    comma_padding_backtrack: int = setting(
        20, "Comma backtracking", "A chunk of 75 tokens that would end within this many tokens after a comma ends at "
        "the comma. 0 turns it off.", minimum=0, maximum=74, step=1, unit="tokens",
    )
    sdxl_clip_l_skip: bool = setting(False, "Clip skip for SDXL", "Let clip skip act on SDXL's first text encoder.")
    sdxl_crop_top: int = setting(0, "SDXL crop top", "Top of the crop SDXL is told about.", unit="pixels")
    sdxl_crop_left: int = setting(0, "SDXL crop left", "Left of the crop SDXL is told about.", unit="pixels")
    eta_ddim: float = setting(0.0, "Eta for DDIM", "Noise of DDIM: 0 none, 1 ancestral.", minimum=0, maximum=1)
    eta_ancestral: float = setting(1.0, "Eta", "Noise of ancestral and SDE samplers.", minimum=0, maximum=1)
    s_churn: float = setting(0.0, "Sigma churn", "Noise added at every step (Euler, Heun, DPM2).", minimum=0)
    s_tmin: float = setting(0.0, "Sigma tmin", "Churn from this sigma on.", minimum=0)
    s_tmax: float = setting(0.0, "Sigma tmax", "Churn up to this sigma; 0 means no limit.", minimum=0)
    s_noise: float = setting(1.0, "Sigma noise", "Factor of the noise that samplers add.", minimum=0)
    sigma_min: float = setting(0.0, "Schedule min sigma", "Lowest noise level; 0 is the model's.", minimum=0)
    sigma_max: float = setting(0.0, "Schedule max sigma", "Highest noise level; 0 is the model's.", minimum=0)
    rho: float = setting(0.0, "Schedule rho", "Steepness of Karras (7) and Polyexponential (1); 0 is the default.")
    beta_dist_alpha: float = setting(0.6, "Beta schedule alpha", "First parameter of the Beta schedule.", minimum=0.01)
    beta_dist_beta: float = setting(0.6, "Beta schedule beta", "Second parameter of the Beta schedule.", minimum=0.01)
    always_discard_next_to_last_sigma: bool = setting(
        False, "Discard penultimate sigma", "Leave out the next-to-last noise level with every sampler."
    )
    sgm_noise_multiplier: bool = setting(
        False, "SGM noise multiplier", "Scale the first noise as SDXL's own code does."
    )
    uni_pc_variant: str = setting(
        "bh1", "UniPC variant", "The solver's form.", choices=("bh1", "bh2", "vary_coeff")
    )
    uni_pc_skip_type: str = setting(
        "time_uniform", "UniPC skip type", "How UniPC spreads its steps.",
        choices=("time_uniform", "time_quadratic", "logSNR"),
    )
    uni_pc_order: int = setting(3, "UniPC order", "Order of the solver; at most the steps.", minimum=1, maximum=50)
    uni_pc_lower_order_final: bool = setting(True, "UniPC lower order final", "Lower orders for the last steps.")
    sd_noise_schedule: str = setting(
        "Default", "Noise schedule", "Zero Terminal SNR is for models trained with it.",
        choices=("Default", "Zero Terminal SNR"),
    )
    skip_early_cond: float = setting(
        0.0, "Skip early CFG", "Share of the first steps without the negative prompt.", minimum=0, maximum=1
    )
    s_min_uncond: float = setting(0.0, "NGMS", "No negative prompt below this sigma, every other step.", minimum=0)
    s_min_uncond_all: bool = setting(False, "NGMS all steps", "Let NGMS act on all steps.")
    pad_cond_uncond: bool = setting(False, "Pad conds", "Pad the shorter prompt with empty chunks.")
    pad_cond_uncond_v0: bool = setting(
        False, "Pad conds v0", "Cut or stretch the negative prompt to the prompt's length, as DDIM did before 1.6."
    )
    img2img_extra_noise: float = setting(0.0, "Extra noise", "Extra noise at the start of hires fix.", minimum=0)
    inpainting_mask_weight: float = setting(
        1.0, "Conditional mask weight", "For inpainting models: how much of the picture is hidden.",
        minimum=0, maximum=1,
    )
    tiling: bool = setting(False, "Tiling", "Make the picture tileable.")
    enable_prompt_comments: bool = setting(
        True, "Prompt comments", "A # hides the rest of its line of the prompt."
    )
    enable_quantization: bool = setting(False, "Quantise timesteps", "Round noise levels to the model's own.")
    no_dpmpp_sde_batch_determinism: bool = setting(
        False, "SDE noise by batch", "Draw the noise of SDE samplers from one path for the whole batch."
    )
    use_old_karras_scheduler_sigmas: bool = setting(False, "Old Karras sigmas", "Noise levels from 10 to 0.1.")
    use_old_hires_fix_width_height: bool = setting(
        False, "Old hires size", "Width and height are the final size of hires fix."
    )
    use_old_scheduling: bool = setting(
        False, "Old prompt editing timelines", "Prompt editing as before WebUI 1.6."
    )
    use_downcasted_alpha_bar: bool = setting(
        False, "Downcast alphas_cumprod", "Noise table in half precision, as before WebUI 1.7."
    )
    hires_fix_use_firstpass_conds: bool = setting(
        False, "First pass networks in hires", "Encode the hires prompt with the LoRA of the first pass."
    )
    batch_cond_uncond: bool = setting(True, "Batch cond and uncond", "Prompt and negative prompt in one pass.")
    auto_vae_precision: bool = setting(
        True, "VAE to 32 bit", "Decode again in 32 bit when half precision gives no numbers."
    )
    auto_vae_precision_bfloat16: bool = setting(
        False, "VAE to bfloat16", "Decode again in bfloat16 instead of 32 bit."
    )


@dataclass(frozen=True)
class SampleRequest:
    """One request for pictures, lossless: API bodies, infotexts, flags, previews and grids all become this."""

    prompt: str = setting("", "Prompt", "What to draw.", level=BASIC, kind="text")
    negative_prompt: str = setting("", "Negative prompt", "What not to draw.", level=BASIC, kind="text")
    steps: int = setting(50, "Steps", "Sampling steps.", minimum=1, maximum=1000, level=BASIC)
    sampler_name: str = setting("Euler", "Sampler", "The sampler, as the WebUI names it.", level=BASIC)
    scheduler: str = setting("Automatic", "Schedule type", "Which noise levels the sampler visits.", level=BASIC)
    cfg_scale: float = setting(7.0, "CFG scale", "How closely to follow the prompt.", level=BASIC)
    seed: int = setting(-1, "Seed", "Where the noise comes from; -1 for a random one.", level=BASIC)
    width: int = setting(512, "Width", "Of the picture.", minimum=8, unit="pixels", level=BASIC)
    height: int = setting(512, "Height", "Of the picture.", minimum=8, unit="pixels", level=BASIC)
    clip_skip: int = setting(
        1, "Clip skip", "Stop the text encoder this many layers early (SD1).", minimum=1, maximum=12, level=BASIC
    )
    batch_size: int = setting(1, "Batch size", "Pictures at once.", minimum=1)
    n_iter: int = setting(1, "Batch count", "Batches one after another.", minimum=1)
    subseed: int = setting(-1, "Variation seed", "A second seed to mix in; -1 for a random one.")
    subseed_strength: float = setting(0.0, "Variation strength", "How much of it.", minimum=0, maximum=1)
    seed_resize_from_w: int = setting(-1, "Seed resize from width", "Keep the composition of this width.")
    seed_resize_from_h: int = setting(-1, "Seed resize from height", "Keep the composition of this height.")
    ensd: int = setting(0, "ENSD", "Added to the seed for the noise after the first.")
    randn_source: str = setting(
        "GPU", "RNG", "Where the noise is made: GPU is the sampling device, NV is what an NVidia card would give.",
        choices=("GPU", "CPU", "NV"),
    )
    emphasis: str = setting("Original", "Emphasis", "How (weights:1.1) act.", choices=EMPHASIS)
    eta: float | None = setting(None, "Eta", "Noise of the sampler, over the options' value.", default_text="options")
    s_churn: float | None = setting(None, "Churn", "Over the options' value.", minimum=0, default_text="options")
    s_tmin: float | None = setting(None, "Churn from", "Over the options' value.", minimum=0, default_text="options")
    s_tmax: float | None = setting(None, "Churn up to", "Over the options' value.", minimum=0, default_text="options")
    s_noise: float | None = setting(None, "Sigma noise", "Over the options' value.", minimum=0, default_text="options")
    s_min_uncond: float | None = setting(None, "NGMS", "Over the options' value.", minimum=0, default_text="options")
    tiling: bool | None = setting(None, "Tiling", "Make the picture tileable.", default_text="options")
    disable_extra_networks: bool = setting(False, "No LoRA", "Leave <lora:...> marks without effect.")
    enable_hr: bool = setting(False, "Hires fix", "Draw small first, then larger from that.", level=BASIC)
    denoising_strength: float = setting(
        0.75, "Denoising strength", "How much hires fix redraws.", minimum=0, maximum=1, level=BASIC
    )
    hr_scale: float = setting(2.0, "Hires upscale", "Factor of the second pass.", minimum=0.05, level=BASIC)
    hr_upscaler: str = setting("Latent", "Hires upscaler", "How the first picture is made larger.", level=BASIC)
    hr_second_pass_steps: int = setting(0, "Hires steps", "Steps of the second pass; 0 as the first.", minimum=0)
    hr_resize_x: int = setting(0, "Hires width", "Final width; 0 by the upscale factor.", minimum=0, unit="pixels")
    hr_resize_y: int = setting(0, "Hires height", "Final height; 0 by the upscale factor.", minimum=0, unit="pixels")
    hr_sampler_name: str | None = setting(None, "Hires sampler", "Of the second pass.", default_text="as the first")
    hr_scheduler: str | None = setting(
        None, "Hires schedule type", "Of the second pass.", default_text="as the first"
    )
    hr_prompt: str = setting("", "Hires prompt", "Of the second pass; empty as the first.", kind="text")
    hr_negative_prompt: str = setting(
        "", "Hires negative prompt", "Of the second pass; empty as the first.", kind="text"
    )
    firstphase_width: int = setting(0, "First pass width", "Old form: width is then the final one.", minimum=0)
    firstphase_height: int = setting(0, "First pass height", "Old form: height is then the final one.", minimum=0)
    options: SampleOptions = group(SampleOptions, "Options", "Settings of the WebUI that change pictures.")

    @property
    def count(self) -> int:
        """Pictures that the request asks for."""
        return self.batch_size * self.n_iter


@dataclass(frozen=True)
class SampleSettings:
    """The settings of the `sample` command."""

    checkpoint: str = setting("toybox", "Checkpoint", "The model to sample from.", level=BASIC, kind="checkpoint")
    out: str = setting("", "Output folder", "Where pictures are written, 0000.png and on.", level=BASIC, kind="folder")
    requests: tuple[SampleRequest, ...] = setting((), "Requests", "What to draw.")
    save_latents: bool = setting(False, "Save latents", "Also write the final latents, 0000.npy and on.")
    vae: str | None = setting(None, "VAE", "A VAE file to use instead of the checkpoint's.", kind="path")
    lora_dir: str | None = setting(
        None, "LoRA folder", "Where <lora:name> is looked up.", kind="folder",
        default_text="the checkpoint's folder, then models/Lora",
    )
    embeddings_dir: str | None = setting(
        None, "Embeddings folder", "Where textual-inversion embeddings are looked up.", kind="folder",
        default_text="the checkpoint's folder, then embeddings",
    )
    device: str = setting("auto", "Device", "auto, cpu or cuda.")
    precision: str = setting(
        "auto", "Precision", "Of the modules; auto is full on a CPU and half on a GPU.",
        choices=("auto", "fp32", "fp16", "bf16"),
    )
    vae_tiling: bool = setting(False, "VAE tiling", "Decode in tiles: large pictures in little memory.")
