"""Writing the side-by-side `.yaml` that LDM, SGM and the WebUI read, for models of no published size.

`ldm_config.apply_config` reads it back to the same family.
"""
from __future__ import annotations

from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.model.family import SD1, V_PREDICTION, Family, TextConfig

_SGM = "sgm.modules.diffusionmodules"
_LDM_EMBEDDERS = "ldm.modules.encoders.modules"
_SGM_EMBEDDERS = "sgm.modules.encoders.modules"
_SIZE_WIDTH = 256
# The WebUI builds open_clip's encoder by the name of an architecture; these are those of SD2, SDXL and small ones.
_ARCHITECTURES = {(1024, 24): "ViT-H-14", (1280, 32): "ViT-bigG-14", (768, 12): "ViT-L-14", (512, 12): "ViT-B-32",
                  (384, 12): "ViT-S-32"}


def describe(family: Family, clip_folder: str | None = None) -> str:
    """The description of `family`. Raises `ValueError` when its number of attention heads is not known.

    `clip_folder` is where the WebUI finds the configuration and tokenizer of a scaled-down CLIP text encoder.
    """
    if family.unet.heads is None:
        raise ValueError("the number of attention heads is not known")
    model = _sgm(family, clip_folder) if family.is_sdxl else _ldm(family, clip_folder)
    return textfiles.write_yaml({"model": model})


def _ldm(family: Family, clip_folder: str | None) -> dict[str, Any]:
    text = family.text[0]
    embedder: dict[str, Any] = {"target": f"{_LDM_EMBEDDERS}.FrozenCLIPEmbedder"}
    if family.name != SD1:
        embedder = {
            "target": f"{_LDM_EMBEDDERS}.FrozenOpenCLIPEmbedder",
            "params": {"freeze": True, "layer": "penultimate"} | _architecture(text),
        }
    elif clip_folder:
        embedder["params"] = {"version": clip_folder}
    inpainting = family.variant == "inpainting"
    params = {
        "linear_start": family.schedule.linear_start, "linear_end": family.schedule.linear_end,
        "num_timesteps_cond": 1, "log_every_t": 200, "timesteps": family.schedule.timesteps,
        "first_stage_key": "jpg", "cond_stage_key": "txt",
        "image_size": family.resolution // family.vae.downscale, "channels": family.vae.z_channels,
        "cond_stage_trainable": False, "conditioning_key": "hybrid" if inpainting else "crossattn",
        "monitor": "val/loss_simple_ema", "scale_factor": family.scale_factor,
        "parameterization": "v" if family.prediction_type == V_PREDICTION else "eps",
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": _unet(family)},
        "first_stage_config": _vae(family, "ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": embedder,
    }
    params |= {"finetune_keys": None} if inpainting else {"use_ema": False}
    name = "LatentInpaintDiffusion" if inpainting else "LatentDiffusion"
    return {"base_learning_rate": 1e-4, "target": f"ldm.models.diffusion.ddpm.{name}", "params": params}


def _sgm(family: Family, clip_folder: str | None) -> dict[str, Any]:
    scaling = "VScaling" if family.prediction_type == V_PREDICTION else "EpsScaling"
    denoiser = {
        "num_idx": family.schedule.timesteps,
        "weighting_config": {"target": f"{_SGM}.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{_SGM}.denoiser_scaling.{scaling}"},
        "discretization_config": {"target": f"{_SGM}.discretizer.LegacyDDPMDiscretization"},
    }
    return {
        "target": "sgm.models.diffusion.DiffusionEngine",
        "params": {
            "scale_factor": family.scale_factor, "disable_first_stage_autocast": True,
            "denoiser_config": {"target": f"{_SGM}.denoiser.DiscreteDenoiser", "params": denoiser},
            "network_config": {"target": f"{_SGM}.openaimodel.UNetModel", "params": _unet(family)},
            "conditioner_config": {
                "target": "sgm.modules.GeneralConditioner", "params": {"emb_models": _embedders(family, clip_folder)},
            },
            "first_stage_config": _vae(family, "sgm.models.autoencoder.AutoencoderKLInferenceWrapper"),
            "use_ema": False,
        },
    }


def _embedders(family: Family, clip_folder: str | None) -> list[dict[str, Any]]:
    first, second = family.text
    layer = {"layer": "hidden", "layer_idx": first.hidden_index} | ({"version": clip_folder} if clip_folder else {})
    pooled = {"freeze": True, "layer": "penultimate", "always_return_pooled": True, "legacy": False}
    texts = [
        ("txt", f"{_SGM_EMBEDDERS}.FrozenCLIPEmbedder", layer),
        ("txt", f"{_SGM_EMBEDDERS}.FrozenOpenCLIPEmbedder2", _architecture(second) | pooled),
    ]
    sizes = [
        (key, f"{_SGM_EMBEDDERS}.ConcatTimestepEmbedderND", {"outdim": _SIZE_WIDTH})
        for key in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    ]
    return [
        {"is_trainable": False, "input_key": key, "target": target, "params": params}
        for key, target, params in texts + sizes
    ]


def _architecture(text: TextConfig) -> dict[str, str]:
    name = _ARCHITECTURES.get((text.width, text.layers))
    return {"arch": name} if name else {}


def _unet(family: Family) -> dict[str, Any]:
    config = family.unet
    widths = {channels // heads for channels, heads in zip(config.channels, config.heads, strict=True)}
    params = {
        "in_channels": config.in_channels, "out_channels": config.out_channels,
        "model_channels": config.model_channels,
        "attention_resolutions": [2**level for level, depth in enumerate(config.transformer_depth) if depth][::-1],
        "num_res_blocks": _one_or_all(config.num_res_blocks), "channel_mult": list(config.channel_mult),
        **({"num_heads": config.heads[0]} if len(set(config.heads)) == 1 else {"num_head_channels": min(widths)}),
        "use_spatial_transformer": True, "use_linear_in_transformer": config.linear_projection,
        "transformer_depth": _one_or_all([depth or 1 for depth in config.transformer_depth[:-1]]
                                         + [config.transformer_depth[-1] or config.middle_depth]),
        "context_dim": config.context_dim, "use_checkpoint": False, "legacy": False,
    }
    if config.adm_in_channels is None:
        return {"image_size": 32, **params}  # LDM asks for it, and never uses it
    return params | {"adm_in_channels": config.adm_in_channels, "num_classes": "sequential"}


def _one_or_all(values: Any) -> Any:
    return values[0] if len(set(values)) == 1 else list(values)


def _vae(family: Family, target: str) -> dict[str, Any]:
    config = family.vae
    inner = {
        "double_z": True, "z_channels": config.z_channels, "resolution": 256, "in_channels": config.in_channels,
        "out_ch": config.out_channels, "ch": config.ch, "ch_mult": list(config.ch_mult),
        "num_res_blocks": config.num_res_blocks, "attn_resolutions": [], "dropout": 0.0,
    }
    return {
        "target": target,
        "params": {
            "embed_dim": config.z_channels, "monitor": "val/rec_loss", "ddconfig": inner,
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }
