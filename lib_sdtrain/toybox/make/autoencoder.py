"""Train the KL autoencoder: L1 and its gradients at several scales, a very small KL weight."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lib_sdtrain.toybox.make import layout
from lib_sdtrain.toybox.make.pictures import HELD_OUT_SEED, autoencoder_scene, rendered
from lib_sdtrain.toybox.make.state import Run
from lib_sdtrain.toybox.scene import any_scene

PICTURES, HELD_OUT_PICTURES = 12000, 64
KL_WEIGHT = 1e-6


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def reconstruction_loss(got: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """L1 plus squared error plus L1 of the horizontal and vertical differences at three scales: edges stay sharp."""
    error = got - wanted
    loss = error.abs().mean() + 2.0 * error.square().mean()
    for _ in range(3):
        loss = loss + 0.5 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())
        error = functional.avg_pool2d(error, 2)
    return loss


def crops(pictures: np.ndarray, rng: np.random.Generator, count: int, side: int) -> torch.Tensor:
    """`count` random squares of `side` pixels, mirrored half of the time."""
    chosen = []
    for index in rng.integers(len(pictures), size=count):
        x, y = rng.integers(layout.SIZE - side + 1, size=2)
        crop = pictures[index, y : y + side, x : x + side]
        chosen.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return pixels(np.stack(chosen))


@torch.no_grad()
def psnr(model: nn.Module, pictures: np.ndarray) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, reconstructing from the posterior's mean."""
    ratios = []
    for start in range(0, len(pictures), 16):
        batch = pixels(pictures[start : start + 16])
        got = model.decode(model.encode(batch).latent_dist.mean).sample.clamp(-1, 1)
        error = (got - batch).div(2).square().mean(dim=(1, 2, 3))
        ratios += (-10 * error.log10()).tolist()
    return float(np.mean(ratios))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over 200 steps, then half a cosine down to a fiftieth of the peak."""
    share = min(1.0, step / max(1, steps))
    return peak * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def train(folder: Path, steps: int, batch: int = 16, peak: float = 1e-3) -> None:
    """Train for `steps` in all, going on from the state in `folder` if there is one.

    The first 80 % of the steps see 64-pixel crops, the rest whole pictures with a quarter of the batch.
    """
    pictures = rendered(autoencoder_scene, PICTURES, folder / "autoencoder-pictures.npy")
    held_out = rendered(lambda i: any_scene(HELD_OUT_SEED, i), HELD_OUT_PICTURES, folder / "held-out-pictures.npy")
    torch.manual_seed(0)
    model = layout.autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    run = Run(folder / "autoencoder", model, optimizer)
    begun = time.monotonic()
    for step in range(run.step, steps):
        whole = step >= 0.8 * steps
        rng = np.random.default_rng([1, step])
        wanted = crops(pictures, rng, batch // 4 if whole else batch, layout.SIZE if whole else layout.SIZE // 2)
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, peak)
        posterior = model.encode(wanted).latent_dist
        generator = torch.Generator().manual_seed(step)
        got = model.decode(posterior.sample(generator)).sample
        loss = reconstruction_loss(got, wanted) + KL_WEIGHT * posterior.kl().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if run.done(step, loss=loss.item(), seconds=time.monotonic() - begun):
            run.note(step, psnr=psnr(model, held_out))
    run.save(steps)
