"""Train the KL autoencoder: squared error, L1 and its gradients at several scales, a very small KL weight."""

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
SQUARED_WEIGHT = 10.0


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def reconstruction_loss(got: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error, and at four scales L1 of the pixels (colours) and of their differences (edges)."""
    error = got - wanted
    loss = SQUARED_WEIGHT * error.square().mean()
    for scale in range(4):
        loss = loss + error.abs().mean()
        if scale < 3:
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


def learning_rate(step: int, begin: int, steps: int, peak: float) -> float:
    """Warm-up over 200 steps from `begin`, then half a cosine down to a fiftieth of the peak at `steps`."""
    share = min(1.0, (step - begin) / max(1, steps - begin))
    return peak * min(1.0, (step - begin + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def step_loss(model: nn.Module, pictures: np.ndarray, step: int, side: int, batch: int) -> torch.Tensor:
    """The loss of one step; all its randomness depends on `step` alone."""
    wanted = crops(pictures, np.random.default_rng([1, step]), batch, side)
    posterior = model.encode(wanted).latent_dist
    got = model.decode(posterior.sample(torch.Generator().manual_seed(step))).sample
    return reconstruction_loss(got, wanted) + KL_WEIGHT * posterior.kl().mean()


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> float:
    """One step of the optimizer, gradients clipped to norm 1; the loss."""
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def train(folder: Path, steps: int, begin: int = 0, whole: float = 0.8, peak: float = 1e-3) -> None:
    """Train for `steps` in all, going on from the state in `folder` if there is one.

    16 crops of 64 pixels a step; from the share `whole` of the steps on, 4 whole pictures a step. `begin` starts the
    learning rate's curve anew at that step, to go on with a training that has ended.
    """
    pictures = rendered(autoencoder_scene, PICTURES, folder / "autoencoder-pictures.npy")
    held_out = rendered(lambda i: any_scene(HELD_OUT_SEED, i), HELD_OUT_PICTURES, folder / "held-out-pictures.npy")
    torch.manual_seed(0)
    model = layout.autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    run = Run(folder / "autoencoder", model, optimizer)
    started = time.monotonic()
    for step in range(run.step, steps):
        side, batch = (layout.SIZE, 4) if step >= whole * steps else (layout.SIZE // 2, 16)
        optimizer.param_groups[0]["lr"] = learning_rate(step, begin, steps, peak)
        loss = step_loss(model, pictures, step, side, batch)
        value = descend(loss, optimizer, list(model.parameters()))
        if run.done(step, loss=value, seconds=time.monotonic() - started):
            run.note(step + 1, psnr=psnr(model, held_out))
    run.save(steps)


def train_decoder(folder: Path, steps: int, peak: float = 6e-4) -> None:
    """Go on with the decoder alone, while the encoder stays what the beginning was written with.

    Its latents get a little noise, so that it forgives what a diffusion model leaves.
    """
    pictures = rendered(autoencoder_scene, PICTURES, folder / "autoencoder-pictures.npy")
    held_out = rendered(lambda i: any_scene(HELD_OUT_SEED, i), HELD_OUT_PICTURES, folder / "held-out-pictures.npy")
    model = layout.autoencoder()
    model.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True)["model"])
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    run = Run(folder / "decoder", model, optimizer)
    with np.load(folder / "latents.npz") as measured:
        spread = 0.05 * torch.from_numpy(measured["std"]).view(1, -1, 1, 1)
    started = time.monotonic()
    for step in range(run.step, steps):
        wanted = crops(pictures, np.random.default_rng([3, step]), 4, layout.SIZE)
        with torch.no_grad():
            latents = model.encode(wanted).latent_dist.mean
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(step))
        optimizer.param_groups[0]["lr"] = learning_rate(step, 0, steps, peak)
        value = descend(reconstruction_loss(model.decode(latents + spread * noise).sample, wanted), optimizer, trained)
        if run.done(step, loss=value, seconds=time.monotonic() - started):
            run.note(step + 1, psnr=psnr(model, held_out))
    run.save(steps)
