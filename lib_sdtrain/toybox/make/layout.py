"""The sizes of the toybox model: Stable Diffusion 1's layout, scaled down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib_sdtrain.model import build
from lib_sdtrain.model.family import SD1, Family, TextConfig, UNetConfig, VAEConfig

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

SIZE = 128
TEXT = TextConfig(width=128, layers=6, intermediate=512, skippable=True)
FAMILY = Family(
    SD1,
    # Its normalisations have 32 groups, as SD1's. With 32 channels each group would be one channel and the last of them
    # would take away every channel's mean, and with it the prompt's say in the broad light and colour of a picture.
    UNetConfig(model_channels=64, channel_mult=(1, 1, 2, 2), context_dim=TEXT.width, heads=(4, 4, 4, 4)),
    (TEXT,),
    VAEConfig(ch=32, ch_mult=(1, 1, 2, 4), num_res_blocks=1),
    resolution=SIZE,
)


def autoencoder() -> AutoencoderKL:
    """A fresh autoencoder; its latents get unit variance only when the file is written (`export`)."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**build.vae_config(FAMILY.vae, FAMILY.scale_factor))


def unet() -> UNet2DConditionModel:
    """A fresh UNet."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**build.unet_config(FAMILY.unet, sample_size=SIZE // FAMILY.vae.downscale))


def text_encoder(vocabulary: int) -> CLIPTextModel:
    """A fresh text encoder that knows only as many tokens as training uses."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**build.text_config(TEXT) | {"vocab_size": vocabulary}))
