"""Between latents and pictures: the VAE as the WebUI uses it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.events import Notice
from lib_sdtrain.settings.sample import SampleOptions

Tell = Callable[[Notice], None]


class Pictures:
    """Encodes and decodes one picture at a time.

    `vae` is diffusers' AutoencoderKL, `scale_factor` the family's. Half precision that gives no numbers is answered by
    a second try in 32 bit (or bfloat16), which stays on, and a notice.
    """

    def __init__(self, vae: Any, scale_factor: float, options: SampleOptions, tell: Tell) -> None:
        self.vae = vae
        self.scale_factor = scale_factor
        self.options = options
        self.tell = tell

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the VAE's weights."""
        return next(self.vae.parameters()).dtype

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) in about [-1, 1], float32 on the CPU, of latents (B, 4, h, w)."""
        return torch.cat([self._decode_one(latent[None]) for latent in latents])

    def _decode_one(self, latent: torch.Tensor) -> torch.Tensor:
        pixels = self._forward(latent)
        wanted = self._other_precision()
        if pixels.isnan().all() and wanted is not None:
            self.tell(Notice(text=f"the VAE gave no numbers in {self.dtype}; decoding in {wanted} from here on"))
            with torch.inference_mode(mode=False):  # weights made in inference mode could not be trained on later
                self.vae.to(wanted)
            pixels = self._forward(latent)
        if pixels.isnan().all():
            raise JobFailed(f"the VAE gave no numbers (NaN) in {self.dtype}", where="decoding", fix="use another VAE")
        return pixels

    def _forward(self, latent: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latent.to(self.dtype) / self.scale_factor).sample.float().cpu()

    def _other_precision(self) -> torch.dtype | None:
        wanted = None
        if self.options.auto_vae_precision_bfloat16:
            wanted = torch.bfloat16
        elif self.options.auto_vae_precision:
            wanted = torch.float32
        return None if wanted == self.dtype else wanted

    def encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents (B, 4, h, w) of pixels (B, 3, H, W) in [-1, 1]; posteriors are sampled from `generator` in order."""
        device = next(self.vae.parameters()).device
        found = []
        for picture in pixels.to(device, self.dtype):
            posterior = self.vae.encode(picture[None]).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            found.append((posterior.mean + posterior.std * noise) * self.scale_factor)
        return torch.cat(found).float()


@contextmanager
def tiles(vae: Any, wanted: bool) -> Iterator[None]:
    """Let the VAE work in overlapping tiles: large pictures in little memory, slightly different pixels."""
    if not wanted:
        yield
        return
    before = vae.use_tiling
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.use_tiling = before


@contextmanager
def tileable(modules: list[torch.nn.Module], wanted: bool) -> Iterator[None]:
    """Let every convolution wrap around the edges, so that the picture can be laid side by side with itself."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    before = [layer.padding_mode for layer in layers]
    try:
        for layer in layers if wanted else []:
            layer.padding_mode = "circular"
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.padding_mode = mode
