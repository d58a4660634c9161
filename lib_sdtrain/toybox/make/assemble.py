"""From the states of the trainings to the published file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE
from lib_sdtrain.model.writer import Written
from lib_sdtrain.toybox.make import diffusion, export, layout
from lib_sdtrain.toybox.make.words import Vocabulary, used_vocabulary

EMBEDDING = "text_model.embeddings.token_embedding.weight"


def split(joined: dict[str, Tensor], vocabulary: Vocabulary) -> dict[str, dict[str, Tensor]]:
    """The state of `TextAndUNet` as states of the two modules, the token embedding at its full size."""
    parts = {
        part: {name.removeprefix(f"{part}."): value for name, value in joined.items() if name.startswith(f"{part}.")}
        for part in (TEXT_ENCODERS[0], UNET)
    }
    text = parts[TEXT_ENCODERS[0]]
    text[EMBEDDING] = export.full_embedding(text[EMBEDDING], list(vocabulary.ids), layout.TEXT.vocab_size)
    return parts


def publish(folder: Path, out: Path, first_decoder: bool = False) -> Written:
    """Write the model that `folder` holds: the averaged weights, and the autoencoder with unit-variance latents.

    The encoder is the one that the latents were made with; the decoder that was trained on since (`decoder.pt`) is
    taken unless `first_decoder` asks for the one that the encoder was trained with.
    """
    vocabulary = used_vocabulary()
    latents = torch.load(folder / "latents.pt", weights_only=True)
    state = torch.load(folder / "diffusion.pt", weights_only=True)
    vae = latents["vae"]
    better = folder / "decoder.pt"
    if better.exists() and not first_decoder:
        vae = torch.load(better, weights_only=True)["model"]
    model = diffusion.TextAndUNet(vocabulary)
    model.load_state_dict(state["extra"]["average"])
    states = split(model.state_dict(), vocabulary)
    states[VAE] = export.with_unit_variance(vae, latents["mean"], latents["std"], layout.FAMILY.scale_factor)
    metadata = {
        "modelspec.title": "toybox",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.resolution": f"{layout.SIZE}x{layout.SIZE}",
        "sdtrain.autoencoder_steps": str(latents["step"]),
        "sdtrain.diffusion_steps": str(state["step"]),
    }
    return export.write(out, layout.FAMILY, states, metadata)
