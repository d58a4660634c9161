"""Train text encoder and UNet together on latents of the world: noise prediction, as SD1 was trained (Ho et al. 2020,
Rombach et al. 2022), with captions dropped for classifier-free guidance and a moving average of the weights.

A third of the steps reads the text encoder's last layer but one, so that clip skip 2 is as good as clip skip 1.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_sdtrain.model import text
from lib_sdtrain.toybox.captions import caption
from lib_sdtrain.toybox.make import layout
from lib_sdtrain.toybox.make.autoencoder import pixels
from lib_sdtrain.toybox.make.pictures import diffusion_scene, rendered
from lib_sdtrain.toybox.make.state import Run
from lib_sdtrain.toybox.make.words import Vocabulary, framed, used_vocabulary
from lib_sdtrain.toybox.scene import keyed

PICTURES = 16000
DROPPED_CAPTIONS = 0.1
SECOND_LAST_LAYER = 1 / 3
EMA_DECAY = 0.999


class TextAndUNet(nn.Module):
    """What is trained together, so that one state holds both."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.text_encoder = layout.text_encoder(len(vocabulary.ids))
        self.unet = layout.unet()

    def forward(self, noisy: Tensor, steps: Tensor, ids: Tensor, clip_skip: int) -> Tensor:
        """Predicted noise. noisy (B, 4, 16, 16), steps (B,), ids (B, 77) of the small vocabulary."""
        hidden = text.encode(self.text_encoder, layout.TEXT, ids, clip_skip).hidden
        return self.unet(noisy, steps, hidden).sample


@dataclass(frozen=True)
class Latents:
    """Latents of the training pictures with zero mean and unit variance, and what they were normalised by."""

    values: Tensor
    mean: Tensor
    std: Tensor


@torch.no_grad()
def encode_latents(folder: Path, count: int = PICTURES) -> None:
    """Encode the training pictures with the autoencoder's current state into `latents.pt`."""
    pictures = rendered(diffusion_scene, count, folder / "diffusion-pictures.npy")
    state = torch.load(folder / "autoencoder.pt", weights_only=True)
    model = layout.autoencoder().eval()
    model.load_state_dict(state["model"])
    found = [
        model.encode(pixels(pictures[start : start + 50])).latent_dist.mean.half() for start in range(0, count, 50)
    ]
    values = torch.cat(found)
    mean, std = values.float().mean((0, 2, 3)), values.float().std((0, 2, 3))
    part = folder / "latents.part"
    torch.save({"values": values, "mean": mean, "std": std, "vae": state["model"], "step": state["step"]}, part)
    part.replace(folder / "latents.pt")


def load_latents(folder: Path) -> Latents:
    """What `encode_latents` wrote, normalised."""
    saved = torch.load(folder / "latents.pt", weights_only=True)
    shape = (1, -1, 1, 1)
    return Latents((saved["values"].float() - saved["mean"].view(shape)) / saved["std"].view(shape),
                   saved["mean"], saved["std"])  # fmt: skip


def captions(indices: np.ndarray, step: int) -> list[tuple[int, ...]]:
    """Freshly worded captions of the chosen pictures, a tenth of them empty."""
    found = []
    for index in indices:
        rng = keyed("caption", step, index)
        empty = rng.random() < DROPPED_CAPTIONS
        found.append(framed("" if empty else caption(diffusion_scene(int(index)), rng)))
    return found


def step_loss(model: TextAndUNet, latents: Latents, vocabulary: Vocabulary, batch: int, step: int) -> Tensor:
    """The loss of one step; all its randomness depends on `step` alone."""
    rng = np.random.default_rng([2, step])
    chosen = rng.integers(len(latents.values), size=batch)
    ids = vocabulary.compact([list(row) for row in captions(chosen, step)])
    generator = torch.Generator().manual_seed(step)
    clean = latents.values[torch.from_numpy(chosen)]
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.randint(0, layout.FAMILY.schedule.timesteps, (batch,), generator=generator)
    level = layout.FAMILY.schedule.table()[times].view(-1, 1, 1, 1)
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    clip_skip = 2 if rng.random() < SECOND_LAST_LAYER else 1
    return functional.mse_loss(model(noisy, times, ids, clip_skip), noise)


def update_average(average: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """Exponential moving average of the weights, slower as training goes on."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)


def train(folder: Path, steps: int, batch: int = 32, peak: float = 5e-4) -> None:
    """Train for `steps` in all, going on from the state in `folder` if there is one.

    The learning rate is constant after 300 steps of warm-up and falls linearly to zero over the last fifth. Forward
    passes run in bfloat16, weights and the optimizer stay in float32.
    """
    from diffusers.models.attention_processor import AttnProcessor

    latents, vocabulary = load_latents(folder), used_vocabulary()
    torch.manual_seed(0)
    model = TextAndUNet(vocabulary)
    model.unet.set_attn_processor(AttnProcessor())
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    run = Run(folder / "diffusion", model, optimizer)
    if "average" not in run.extra:
        run.extra["average"] = {name: value.clone() for name, value in model.state_dict().items()}
    smooth, begun = None, time.monotonic()
    for step in range(run.step, steps):
        fall = min(1.0, 5 * (1 - step / steps))
        optimizer.param_groups[0]["lr"] = peak * min(1.0, (step + 1) / 300) * fall
        with torch.autocast("cpu", torch.bfloat16):
            loss = step_loss(model, latents, vocabulary, batch, step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(run.extra["average"], model, step)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        run.done(step, loss=smooth, seconds=time.monotonic() - begun)
    run.save(steps)
