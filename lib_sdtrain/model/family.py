"""What kind of Stable Diffusion a checkpoint holds: frozen descriptions of its architecture.

Field names are those of the LDM/SGM configurations. Everything else (key tables, modules, schedules) is derived
from a `Family`; nothing asks for a family by its name where the numbers decide.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lib_sdtrain.model.schedule import LINEAR_END, LINEAR_START, TIMESTEPS, alphas_cumprod, rescale_zero_terminal_snr

if TYPE_CHECKING:
    from torch import Tensor

SD1, SD2, SDXL = "sd1", "sd2", "sdxl"
ARCHITECTURES = {SD1: "stable-diffusion-v1", SD2: "stable-diffusion-v2", SDXL: "stable-diffusion-xl-v1-base"}
"""What Stability's metadata specification (modelspec) calls them."""
EPSILON, V_PREDICTION = "epsilon", "v_prediction"
V_MARKER, ZERO_SNR_MARKER = "v_pred", "ztsnr"
"""Keys of empty tensors by which a checkpoint says what no shape tells."""
SD2_V_RESOLUTION = 768  # SD2's two published forms are told apart by the prediction type alone
TEXT_HEAD_WIDTH = 64  # of every CLIP text encoder, OpenAI's and open_clip's


@dataclass(frozen=True)
class UNetConfig:
    """The denoising UNet. Tuples have one item a level, from the finest to the coarsest.

    `transformer_depth` is 0 where a level has no attention. `heads` is None when nothing tells the number of
    attention heads: no tensor's shape depends on it.
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    transformer_depth: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int = 1
    context_dim: int = 768
    heads: tuple[int, ...] | None = (8, 8, 8, 8)
    linear_projection: bool = False
    adm_in_channels: int | None = None

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder (AutoencoderKL). `ch_mult` has one item a level; each level but the last halves the size."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    in_channels: int = 3
    out_channels: int = 3

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.ch * mult for mult in self.ch_mult)

    @property
    def downscale(self) -> int:
        """Pixels a latent pixel stands for, along one side."""
        return 2 ** (len(self.ch_mult) - 1)


@dataclass(frozen=True)
class TextConfig:
    """A CLIP text encoder and how its output is used.

    `layout` is `clip` (transformers' names) or `open_clip` (resblocks, joined q/k/v); `prefix` is where it stands in
    the file. `hidden_index` counts as Python does among the embedding's output and each layer's; the user's clip
    skip replaces it where `skippable`. `projection` is the width of the pooled output, None where none is used.
    """

    layout: str = "clip"
    prefix: str = "cond_stage_model.transformer."
    width: int = 768
    layers: int = 12
    intermediate: int = 3072
    vocab_size: int = 49408
    positions: int = 77
    activation: str = "quick_gelu"
    projection: int | None = None
    hidden_index: int = -1
    final_norm: bool = True
    skippable: bool = False

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // TEXT_HEAD_WIDTH

    @property
    def tokenizer_style(self) -> str:
        """How the host reads text for this encoder (`tokenizer.Tokenizer`)."""
        return "open_clip" if self.layout == "open_clip" else "transformers"


@dataclass(frozen=True)
class NoiseSchedule:
    """The scaled-linear beta schedule; `zero_terminal_snr` rescales it so that the last step is pure noise."""

    timesteps: int = TIMESTEPS
    linear_start: float = LINEAR_START
    linear_end: float = LINEAR_END
    zero_terminal_snr: bool = False

    def table(self) -> Tensor:
        """alphas_cumprod, shape (timesteps,), float32."""
        plain = alphas_cumprod(self.timesteps, self.linear_start, self.linear_end)
        return rescale_zero_terminal_snr(plain) if self.zero_terminal_snr else plain


@dataclass(frozen=True)
class Family:
    """One architecture of Stable Diffusion, complete enough to build its modules.

    `prediction_guessed` says that nothing in the file or beside it names the prediction type (SD2 only); building
    the UNet settles it as the host does. `resolution` is the side in pixels that the model was made for.
    """

    name: str
    unet: UNetConfig
    text: tuple[TextConfig, ...]
    vae: VAEConfig = field(default_factory=VAEConfig)
    prediction_type: str = EPSILON
    prediction_guessed: bool = False
    scale_factor: float = 0.18215
    resolution: int = 512
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)

    @property
    def variant(self) -> str:
        """`base`, `inpainting` (9 input channels: latent, mask, masked image) or `instruct_pix2pix` (8)."""
        return {9: "inpainting", 8: "instruct_pix2pix"}.get(self.unet.in_channels, "base")

    @property
    def is_sdxl(self) -> bool:
        """Two text encoders, pooled text and picture sizes as extra conditioning."""
        return self.name == SDXL

    @property
    def markers(self) -> tuple[str, ...]:
        """Keys by which a file says what this family is: SDXL that it predicts v, all that the last step is noise."""
        says_v = self.is_sdxl and self.prediction_type == V_PREDICTION
        return (*((V_MARKER,) if says_v else ()), *((ZERO_SNR_MARKER,) if self.schedule.zero_terminal_snr else ()))

    @property
    def scaled_down(self) -> bool:
        """The UNet, the VAE or a text encoder is not of the published size."""
        known = PUBLISHED[self.name]
        unet = replace(self.unet, in_channels=known.unet.in_channels, heads=known.unet.heads)
        return (unet, self.vae, tuple(_size(t) for t in self.text)) != (
            known.unet, known.vae, tuple(_size(t) for t in known.text),
        )

    def with_prediction_type(self, wanted: str) -> Family:
        """This family predicting `wanted`; `auto` leaves what was detected. SD2's published v model is for 768 px."""
        if wanted == "auto":
            return self
        known = PUBLISHED[self.name]
        resolution = self.resolution
        if self.name == SD2 and not self.scaled_down and resolution in (known.resolution, SD2_V_RESOLUTION):
            resolution = SD2_V_RESOLUTION if wanted == V_PREDICTION else known.resolution
        return replace(self, prediction_type=wanted, prediction_guessed=False, resolution=resolution)


def _size(text: TextConfig) -> tuple[int, ...]:
    """What tells sizes apart. Only layers that are used count: converters drop SD2's last one, which is not."""
    used = text.layers + 1 + text.hidden_index if text.hidden_index < 0 else text.hidden_index
    return (text.width, used, text.intermediate, text.vocab_size, text.positions)


_CLIP_L = TextConfig(skippable=True)
_OPENCLIP_H = TextConfig(
    layout="open_clip", prefix="cond_stage_model.model.", width=1024, layers=24, intermediate=4096, activation="gelu",
    hidden_index=-2,
)
_SDXL_CLIP_L = TextConfig(prefix="conditioner.embedders.0.transformer.", hidden_index=11, final_norm=False)
_SDXL_OPENCLIP_BIGG = TextConfig(
    layout="open_clip", prefix="conditioner.embedders.1.model.", width=1280, layers=32, intermediate=5120,
    activation="gelu", projection=1280, hidden_index=-2, final_norm=False,
)

PUBLISHED = {
    SD1: Family(SD1, UNetConfig(), (_CLIP_L,)),
    SD2: Family(
        SD2, UNetConfig(context_dim=1024, heads=(5, 10, 20, 20), linear_projection=True), (_OPENCLIP_H,),
    ),
    SDXL: Family(
        SDXL,
        UNetConfig(
            channel_mult=(1, 2, 4), num_res_blocks=(2, 2, 2), transformer_depth=(0, 2, 10), middle_depth=10,
            context_dim=2048, heads=(5, 10, 20), linear_projection=True, adm_in_channels=2816,
        ),
        (_SDXL_CLIP_L, _SDXL_OPENCLIP_BIGG), scale_factor=0.13025, resolution=1024,
    ),
}
"""The families at the size in which they were published."""
