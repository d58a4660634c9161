"""What the WebUI calls the parts of a request in an infotext, and which of its settings they stand for."""
from __future__ import annotations

REQUEST_LABELS = {
    "Steps": "steps", "Sampler": "sampler_name", "Schedule type": "scheduler", "CFG scale": "cfg_scale", "Seed": "seed",
    "Variation seed": "subseed", "Variation seed strength": "subseed_strength",
    "Denoising strength": "denoising_strength", "Clip skip": "clip_skip", "ENSD": "ensd", "RNG": "randn_source",
    "Tiling": "tiling", "Hires sampler": "hr_sampler_name", "Hires prompt": "hr_prompt",
    "Hires negative prompt": "hr_negative_prompt", "Hires schedule type": "hr_scheduler", "Hires upscale": "hr_scale",
    "Hires steps": "hr_second_pass_steps", "Hires upscaler": "hr_upscaler", "Emphasis": "emphasis",
}
"""Label to field of the request. Sizes (Size, Seed resize from, Hires resize) are pairs and stand in the parser."""

OPTION_LABELS = {
    "Conditional mask weight": "inpainting_mask_weight",
    "Old prompt editing timelines": "use_old_scheduling",
    "Downcast alphas_cumprod": "use_downcasted_alpha_bar",
    "Noise Schedule": "sd_noise_schedule",
    "Discard penultimate sigma": "always_discard_next_to_last_sigma",
    "Schedule min sigma": "sigma_min", "Schedule max sigma": "sigma_max", "Schedule rho": "rho",
    "Beta schedule alpha": "beta_dist_alpha", "Beta schedule beta": "beta_dist_beta",
    "Extra noise": "img2img_extra_noise", "SGM noise multiplier": "sgm_noise_multiplier",
    "Eta": "eta_ancestral", "Eta DDIM": "eta_ddim",
    "Sigma churn": "s_churn", "Sigma tmin": "s_tmin", "Sigma tmax": "s_tmax", "Sigma noise": "s_noise",
    "Skip Early CFG": "skip_early_cond", "NGMS": "s_min_uncond", "NGMS all steps": "s_min_uncond_all",
    "Pad conds": "pad_cond_uncond", "Pad conds v0": "pad_cond_uncond_v0",
    "UniPC variant": "uni_pc_variant", "UniPC skip type": "uni_pc_skip_type", "UniPC order": "uni_pc_order",
    "UniPC lower order final": "uni_pc_lower_order_final",
}
"""Label to field of the options."""

OPTION_ALIASES = {"Beta scheduler alpha": "beta_dist_alpha", "Beta scheduler beta": "beta_dist_beta"}
"""What the WebUI reads but does not write."""

FACT_LABELS = {
    "Model hash": "model_hash", "Model": "model", "VAE hash": "vae_hash", "VAE": "vae", "Lora hashes": "lora_hashes",
    "TI hashes": "ti_hashes", "Version": "version",
}
"""Label to field of `Facts`: what the picture came from, which the request does not decide."""

ORDER = (
    "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model", "VAE hash", "VAE",
    "Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength", "Conditional mask weight",
    "Clip skip", "ENSD", "RNG", "Tiling", "Hires sampler", "Hires prompt", "Hires negative prompt",
    "Hires schedule type", "Hires upscale", "Hires resize", "Hires steps", "Hires upscaler", "Lora hashes",
    "Old prompt editing timelines", "TI hashes", "Emphasis", "Downcast alphas_cumprod", "Noise Schedule",
    "Discard penultimate sigma", "Schedule min sigma", "Schedule max sigma", "Schedule rho", "Beta schedule alpha",
    "Beta schedule beta", "SGM noise multiplier", "Eta", "Eta DDIM", "Sigma churn", "Sigma tmin", "Sigma tmax",
    "Sigma noise", "Skip Early CFG", "NGMS", "NGMS all steps", "Pad conds", "Pad conds v0", "Extra noise",
)
"""The order in which the WebUI writes them; whatever else there was follows, then Version."""

SAME_AS_FIRST = ("Use same sampler", "Use same scheduler", "Use same checkpoint")
