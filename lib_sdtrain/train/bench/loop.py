"""The baseline: what a stock trainer does in a step, in diffusers' modules and torch's AdamW as they come.

usage: python -m lib_sdtrain.train.bench.loop CONFIG EVENTS

Each step reads its picture and one of the class, encodes both with the VAE and their prompts with the text encoders,
asks the UNet about a noisy form of each, adds up the two errors (DreamBooth, Ruiz et al. 2023), goes back, clips,
steps. It keeps nothing from step to step but the weights, and leaves the allocator, the attention and the form of the
optimizer as they are. CONFIG has settings of a run with one concept; EVENTS gets a line of JSON after each step.
"""
from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lib_sdtrain import textfiles
from lib_sdtrain.model import text
from lib_sdtrain.model.build import LoadedModel, load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import EPSILON
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import LORA
from lib_sdtrain.train.lora_choice import chosen_layers
from lib_sdtrain.train.starting import pick_device


class LowRank(nn.Module):
    """A layer with a LoRA beside it (Hu et al. 2021), as PEFT wraps one: a linear layer or a 1x1 convolution."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        outwards, inwards = base.weight.shape[:2]
        plain = isinstance(base, nn.Linear)
        self.down = nn.Linear(inwards, rank, bias=False) if plain else nn.Conv2d(inwards, rank, 1, bias=False)
        self.up = nn.Linear(rank, outwards, bias=False) if plain else nn.Conv2d(rank, outwards, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer says, and the change."""
        return self.base(x) + self.up(self.down(x)) * self.scale


def trainable(model: LoadedModel, settings: RunSettings) -> list[nn.Parameter]:
    """The parameters that the settings train: of whole parts, or of the LoRA that is put on them."""
    method, found = settings.method, []
    for part in (UNET, *TEXT_ENCODERS):
        if part not in model.parts or not method.trains(part):
            continue
        module = model.parts[part].train()
        if method.kind != LORA:
            found += list(module.requires_grad_(True).parameters())
            continue
        for name in chosen_layers(model.family, part, method):
            owner, _, last = name.rpartition(".")
            layer = LowRank(module.get_submodule(name), method.rank, method.alpha / method.rank)
            setattr(module.get_submodule(owner), last, layer)
            found += [*layer.down.parameters(), *layer.up.parameters()]
    return found


def pictures(folder: str, size: int) -> Iterator[Tensor]:
    """The pictures of a folder round and round, each read anew: (3, size, size) in [-1, 1]."""
    for path in itertools.cycle(sorted(Path(folder).glob("*.png"))):
        with Image.open(path) as image:
            cut = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
        yield torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 127.5 - 1


def words(model: LoadedModel, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """What the UNet is told: (B, 77, width), and for SDXL pooled (B, width)."""
    said = []
    for encoder, tokenizer, config in zip(model.text_encoders, model.tokenizers, model.family.text, strict=True):
        ids = torch.tensor([tokenizer.frame(tokenizer.encode(prompt)[:75]) for prompt in prompts])
        said.append(text.encode(encoder, config, ids.to(encoder.device)))
    return torch.cat([one.hidden for one in said], dim=2), said[-1].pooled


def step_loss(model: LoadedModel, pixels: Tensor, prompts: list[str], prior: float) -> Tensor:
    """The scalar loss of pixels (2, 3, H, W): a picture and one of its class, which counts `prior` times."""
    family = model.family
    latents = model.vae.encode(pixels).latent_dist.sample() * family.scale_factor
    noise = torch.randn_like(latents)
    table = family.schedule.table().to(latents)
    steps = torch.randint(0, len(table), (len(latents),), device=latents.device)
    signal, spread = (rate.sqrt()[:, None, None, None] for rate in (table[steps], 1 - table[steps]))
    context, pooled = words(model, prompts)
    extra = {}
    if pooled is not None:
        height, width = pixels.shape[2:]
        sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(pixels)).to(latents)
        extra["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    said = model.unet(signal * latents + spread * noise, steps, context, return_dict=False, **extra)[0]
    target = noise if family.prediction_type == EPSILON else signal * noise - spread * latents
    return mse_loss(said[:1], target[:1]) + prior * mse_loss(said[1:], target[1:])


def main(config: str, events: str) -> None:
    """Train for the length of the run."""
    settings = build(RunSettings, textfiles.read_mapping(Path(config)), where=config)
    device, train, concept = pick_device(), settings.train, settings.data.concepts[0]
    torch.manual_seed(train.seed)
    model = load_model(open_checkpoint(settings.model.checkpoint), device, torch.float32)
    parameters = trainable(model, settings)
    for part in model.parts.values():
        part.to(device)
    optimizer = torch.optim.AdamW(parameters, lr=train.learning_rate)
    size = int(settings.data.resolution)
    pairs = zip(pictures(concept.instance_dir, size), pictures(concept.class_dir, size), strict=True)
    prompts = [concept.instance_prompt, concept.class_prompt]
    with Path(events).open("w") as out:
        for step in range(1, train.length.steps(1, 1) + 1):
            pixels = torch.stack(next(pairs)).to(device)
            loss = step_loss(model, pixels, prompts, settings.loss.prior_loss_weight)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, train.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            said = {"type": "step", "step": step, "loss": loss.item(), "time": time.time()}
            out.write(json.dumps(said) + "\n")
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
