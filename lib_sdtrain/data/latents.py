"""What the VAE makes of the pictures: encoded once, kept in memory or on disk.

Kept is the distribution (mean and standard deviation), not a sample of it, so that cached training equals
uncached training bit for bit. Pictures are encoded one at a time for the same reason; they are decoded and cut to
size by threads ahead of that.
"""
from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_sdtrain.data import pictures
from lib_sdtrain.data.ahead import ahead
from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.randomness import torch_generator
from lib_sdtrain.data.shards import DamagedShard, ShardStore
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.events import CancelToken, Event, Notice, Phase
from lib_sdtrain.settings.run import DataSettings

STEPS_AN_OCTAVE = 16
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
    """Latent distributions of draws; `vae_key` names the autoencoder on disk, `store` is where they are kept there.

    Who holds `undisturbed` has the VAE to itself: other threads encode nothing meanwhile.
    """

    encode: Encode
    data: DataSettings
    vae_key: str
    store: ShardStore | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    undisturbed: threading.Lock = field(default_factory=threading.Lock)

    def moments(self, draw: Draw) -> Tensor:
        """(2C, h, w) float32: mean and standard deviation of the picture's latents.

        Raises `JobFailed` when what is kept on disk was damaged since it was checked.
        """
        if self.data.cache_latents == "none":
            return self._encoded(load_pixels(draw, self.data)).float()
        name = self.name(draw)
        if self.store is not None:
            return self._stored(name, draw)
        found = self.memory.get(name)
        if found is None:
            found = self.memory[name] = self._encoded(load_pixels(draw, self.data))
        return found.float()

    def sample(self, draw: Draw, seed: int, scale_factor: float) -> Tensor:
        """(C, h, w): a keyed sample of the distribution times the model's scale factor."""
        mean, std = self.moments(draw).chunk(2)
        purpose = "class latent" if draw.is_class else "latent"
        noise = torch.randn(mean.shape, generator=torch_generator(seed, purpose, draw.index))
        return (mean + std * noise) * scale_factor

    def prepare(self, draws: Callable[[], Iterable[Draw]], token: CancelToken) -> Iterator[Event]:
        """Encode what is not yet kept, with progress; damaged shards are named and made again.

        `draws` is asked twice for them, so that however many there are they are not held. Stopping keeps what is done.
        """
        total = 0

        def names() -> Iterator[str]:
            nonlocal total
            for draw in draws():
                total += 1
                yield self.name(draw)

        if self.store is not None:
            yield from self._check(names(), token)
        else:
            total = sum(1 for _ in draws())
        try:
            yield from self._encode_missing(draws(), total, token)
        finally:
            if self.store is not None:
                self.store.flush()

    def _encode_missing(self, draws: Iterable[Draw], total: int, token: CancelToken) -> Iterator[Event]:
        done, underway = 0, set()

        def missing() -> Iterator[tuple[str, Draw]]:
            nonlocal done
            for draw in draws:
                name = self.name(draw)
                if name in underway or self.has(name):
                    done += 1
                else:
                    underway.add(name)
                    yield name, draw

        def decoded(item: tuple[str, Draw]) -> tuple[str, Tensor]:
            return item[0], load_pixels(item[1], self.data)

        for name, pixels in ahead("decode", missing(), decoded, lambda item: None):
            token.check()
            self._keep(name, self._encoded(pixels))
            underway.remove(name)
            done += 1
            yield Phase(name="encoding pictures", done=done, total=total, unit="pictures")
        if total:
            yield Phase(name="encoding pictures", done=total, total=total, unit="pictures")

    def has(self, name: str) -> bool:
        """Whether the latents of this name are kept."""
        return name in (self.memory if self.store is None else self.store)

    def make(self, draw: Draw) -> None:
        """Have the latents of a draw kept."""
        name = self.name(draw)
        if not self.has(name):
            self._keep(name, self._encoded(load_pixels(draw, self.data)))

    def forget(self, draws: Iterable[Draw]) -> None:
        """Keep the latents of these draws no longer."""
        names = map(self.name, draws)
        if self.store is not None:
            self.store.forget(names)
        else:
            for name in names:
                self.memory.pop(name, None)

    def name(self, draw: Draw) -> str:
        """What the latents of a draw depend on: content, resize, crop, ground, mirroring, autoencoder, precision."""
        facts = f"{draw.fit} {self.data.pad_color} {draw.flip} {self.vae_key} {self.data.latent_precision}"
        return hashlib.sha256(f"{draw.picture.sha256} {facts}".encode()).hexdigest()

    def _check(self, names: Iterable[str], token: CancelToken) -> Iterator[Event]:
        while self.store.damaged:
            file = self.store.damaged.pop(0)
            yield Notice(text="cached latents are damaged and made again", where=str(self.store.folder / file))
        for number, (file, whole) in enumerate(self.store.check(names), 1):
            token.check()
            yield Phase(name="checking cached latents", done=number, total=0, unit="files")
            if not whole:
                self.store.drop(file)
                yield Notice(text="cached latents are damaged and made again", where=str(self.store.folder / file))

    def _encoded(self, pixels: Tensor) -> Tensor:
        moments = self.encode(pixels).float().cpu().contiguous()
        return rounded(moments) if self.data.latent_precision == "fp16" else moments

    def _keep(self, name: str, moments: Tensor) -> None:
        if self.store is None:
            self.memory[name] = moments
        else:
            self.store.put(name, moments)

    def _stored(self, name: str, draw: Draw) -> Tensor:
        try:
            found = self.store.get(name)
        except DamagedShard as error:
            raise JobFailed(
                f"cached latents were damaged while training: {error}", where=str(self.store.folder),
                fix="go on with the run: they are made again",
            ) from error
        if found is None:
            found = self._encoded(load_pixels(draw, self.data))
            self.store.put(name, found)
        return found.float()


def rounded(moments: Tensor) -> Tensor:
    """Moments (2C, h, w) as fp16; the deviations to sixteenths of a power of two, which is 2 % at most of what is a
    hundredth of the latents, and compresses well.
    """
    mean, deviation = moments.chunk(2)
    steps = (deviation.log2() * STEPS_AN_OCTAVE).round() / STEPS_AN_OCTAVE
    return torch.cat([mean, steps.exp2()]).half()
