"""Text encoder and UNet, trained by the project's own `train` on pictures and captions of the world.

Before it, the model to begin with is written: the autoencoder with unit-variance latents, and the other parts fresh
or those of an earlier toybox.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.model import build
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.model.writer import Written
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.toybox.captions import caption
from lib_sdtrain.toybox.make import export, layout
from lib_sdtrain.toybox.make.autoencoder import pixels
from lib_sdtrain.toybox.make.pictures import autoencoder_scene, diffusion_scene, rendered
from lib_sdtrain.toybox.scene import keyed
from lib_sdtrain.toybox.world import render

PICTURES = 16000
MEASURED = 2000
AUTOENCODER_STEPS = "sdtrain.autoencoder_steps"
SETTINGS = Path(__file__).with_name("diffusion.yaml")

States = dict[str, dict[str, Tensor]]


def write_pictures(folder: Path, count: int = PICTURES) -> None:
    """`folder`/pictures: PNG files of seen scenes, each with one caption in one of the two styles."""
    target = folder / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = target / f"{index:05d}.png"
        if not path.with_suffix(".txt").exists():
            scene = diffusion_scene(index)
            render(scene).save(path)
            path.with_suffix(".txt").write_text(caption(scene, keyed("caption", index)) + "\n", encoding="utf-8")


@torch.no_grad()
def measure_latents(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (4,) of the latents that the trained autoencoder gives."""
    pictures = rendered(autoencoder_scene, MEASURED, folder / "measured-pictures.npy")
    model = layout.autoencoder().eval()
    model.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True)["model"])
    found = [model.encode(pixels(pictures[i : i + 50])).latent_dist.mean for i in range(0, MEASURED, 50)]
    values = torch.cat(found)
    return values.mean((0, 2, 3)), values.std((0, 2, 3))


def write_beginning(folder: Path, parent: Path | None = None) -> Written:
    """`folder`/beginning.safetensors: what the diffusion part starts from.

    The autoencoder is the one trained in `folder`, else that of `parent`; text encoder and UNet are those of `parent`
    as far as their shapes fit, else fresh. Raises `UserError` when there is no autoencoder.
    """
    trained, states = folder / "autoencoder.pt", _fresh()
    inherited = states_of(parent) if parent else {}
    for part, fresh in states.items():
        states[part] = fresh | _fitting(inherited.get(part, {}), fresh)
    if trained.exists():
        states[VAE], steps = _trained_vae(folder), str(torch.load(trained, weights_only=True)["step"])
    elif parent:
        states[VAE], steps = inherited[VAE], open_tensors(parent).metadata[AUTOENCODER_STEPS]
    else:
        raise UserError("there is no autoencoder", where=str(trained), fix="train it, or give --parent")
    metadata = {"modelspec.title": "toybox, begun", AUTOENCODER_STEPS: steps}
    return export.write(folder / "beginning.safetensors", layout.FAMILY, states, metadata)


def _trained_vae(folder: Path) -> dict[str, Tensor]:
    mean, std = measure_latents(folder)
    vae = torch.load(folder / "autoencoder.pt", weights_only=True)["model"]
    np.savez(folder / "latents.npz", mean=mean.numpy(), std=std.numpy())
    return export.with_unit_variance(vae, mean, std, layout.FAMILY.scale_factor)


def _fitting(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: found[name] for name, value in wanted.items() if name in found and found[name].shape == value.shape}


def states_of(file: Path) -> States:
    """Part -> state in fp32 of a toybox's modules."""
    model = build.load_model(open_checkpoint(file), "cpu", torch.float32)
    return {part: module.state_dict() for part, module in model.parts.items()}


def _fresh() -> States:
    torch.manual_seed(0)
    text, unet = layout.text_encoder(layout.TEXT.vocab_size), layout.unet()
    return {TEXT_ENCODERS[0]: text.state_dict(), UNET: unet.state_dict()}


def train(folder: Path, steps: int) -> Iterator[Event]:
    """Train for `steps` in all, or go on until then, as any user's run in `folder`/diffusion."""
    from lib_sdtrain.train.loop import train as begin
    from lib_sdtrain.train.resume import resume
    from lib_sdtrain.train.starting import resolve_run

    run, changes = folder / "diffusion", {"train.length": steps} if steps else {}
    if (run / "state").exists():
        return resume(run, changes, CancelToken(), "cpu")
    values = yaml.safe_load(SETTINGS.read_text(encoding="utf-8").format(work=folder.resolve().as_posix()))
    resolved = resolve_run([Layer(SETTINGS.name, values), Layer("--steps", changes)], "cpu")
    return begin(resolved.settings, CancelToken(), run_dir=run, device="cpu")
