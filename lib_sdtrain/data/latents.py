"""What the VAE makes of the pictures: encoded once, kept in memory or on disk.

Kept is the distribution (mean and standard deviation), not a sample of it, so that cached training equals
uncached training bit for bit. Pictures are encoded one at a time for the same reason.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.data import pictures
from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.randomness import torch_generator
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Phase
from lib_sdtrain.settings.run import DataSettings

Encode = Callable[[Tensor], Tensor]
"""(3, H, W) pixels in [-1, 1] -> (2C, H/8, W/8): mean and standard deviation, unscaled."""


def load_pixels(draw: Draw, data: DataSettings) -> Tensor:
    """The training picture of a draw, (3, H, W). Raises `UserError` when the file is no longer what was scanned."""
    path = draw.picture.path
    try:
        image = pictures.open_picture(path, data.pad_color)
    except pictures.BadPicture as error:
        raise UserError(f"the picture changed while training: {error}", where=str(path)) from error
    if image.size != draw.picture.size:
        raise UserError("the picture changed while training: it has another size", where=str(path))
    tensor = pictures.to_tensor(pictures.apply_fit(image, draw.fit, data.pad_color))
    return tensor.flip(-1).contiguous() if draw.flip else tensor


@dataclass
class Latents:
    """Latent distributions of draws; `vae_key` names the autoencoder in the disk cache."""

    encode: Encode
    data: DataSettings
    vae_key: str
    folder: Path | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)

    def moments(self, draw: Draw) -> Tensor:
        """(2C, h, w) float32: mean and standard deviation of the picture's latents."""
        if self.data.cache_latents == "none":
            return self.encode(load_pixels(draw, self.data))
        name = self._name(draw)
        if name not in self.memory:
            self.memory[name] = self._from_disk(name, draw) if self.folder else self._encoded(draw)
        return self.memory[name]

    def sample(self, draw: Draw, seed: int, scale_factor: float) -> Tensor:
        """(C, h, w): a keyed sample of the distribution times the model's scale factor."""
        mean, std = self.moments(draw).chunk(2)
        purpose = "class latent" if draw.is_class else "latent"
        noise = torch.randn(mean.shape, generator=torch_generator(seed, purpose, draw.index))
        return (mean + std * noise) * scale_factor

    def prepare(self, draws: Iterable[Draw], token: CancelToken) -> Iterator[Phase]:
        """Encode what is not yet kept, with progress. Stopping keeps what is done."""
        wanted = {self._name(draw): draw for draw in draws}
        for done, (name, draw) in enumerate(wanted.items(), 1):
            token.check()
            if name not in self.memory:
                self.moments(draw)
            yield Phase(name="encoding pictures", done=done, total=len(wanted), unit="pictures")

    def _name(self, draw: Draw) -> str:
        text = f"{draw.picture.sha256} {draw.fit} {self.data.pad_color} {draw.flip} {self.vae_key}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _encoded(self, draw: Draw) -> Tensor:
        return self.encode(load_pixels(draw, self.data)).float().cpu().contiguous()

    def _from_disk(self, name: str, draw: Draw) -> Tensor:
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            try:
                return load_file(path)["moments"]
            except (SafetensorError, KeyError):
                path.unlink()  # damaged: made again below
        moments = self._encoded(draw)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({"moments": moments}, temporary)
        temporary.replace(path)
        return moments
