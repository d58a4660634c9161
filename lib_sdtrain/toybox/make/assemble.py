"""From the trained parts to the published file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from lib_sdtrain.model.keys import TEXT_ENCODERS, VAE
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.model.writer import Written
from lib_sdtrain.toybox.make import diffusion, export, layout
from lib_sdtrain.toybox.make.words import used_tokens

EMBEDDING = "text_model.embeddings.token_embedding.weight"


def publish(folder: Path, out: Path) -> Written:
    """Write the model that the run in `folder`/diffusion has trained, without the names of this machine's files.

    A decoder that was trained on since (`decoder.pt`) takes the place of the one that the encoder was trained with.
    """
    run = folder / "diffusion"
    states = diffusion.states_of(run / "checkpoints" / "toybox.safetensors")
    text, known = states[TEXT_ENCODERS[0]], list(used_tokens())
    text[EMBEDDING] = export.full_embedding(text[EMBEDDING][known], known, layout.TEXT.vocab_size)
    begun = open_tensors(folder / "beginning.safetensors").metadata
    metadata = {
        "modelspec.title": "toybox",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.resolution": f"{layout.SIZE}x{layout.SIZE}",
        "sdtrain.diffusion_steps": str(_steps(run)),
        diffusion.AUTOENCODER_STEPS: begun[diffusion.AUTOENCODER_STEPS],
    }
    better = folder / "decoder.pt"
    if better.exists():
        decoder = torch.load(better, weights_only=True)
        states[VAE] = _with_unit_variance(folder, decoder["model"])
        metadata["sdtrain.decoder_steps"] = str(decoder["step"])
    return export.write(out, layout.FAMILY, states, metadata)


def _with_unit_variance(folder: Path, vae: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with np.load(folder / "latents.npz") as latents:
        mean, std = torch.from_numpy(latents["mean"]), torch.from_numpy(latents["std"])
    return export.with_unit_variance(vae, mean, std, layout.FAMILY.scale_factor)


def _steps(run: Path) -> int:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return max(event["step"] for event in map(json.loads, lines) if event["type"] == "step")
