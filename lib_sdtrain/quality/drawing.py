"""Pictures of a checkpoint for many prompts, from fixed seeds, and what the judge reads from them."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from lib_sdtrain.events import CancelToken, Event, Phase
from lib_sdtrain.model.build import LoadedModel, load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.text_encoding import EncodingCache
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.toybox.judge import Judge, Reading, read

#: 20 steps of Euler a at CFG 7, the noise of the CPU's generator: what the numbers are promised for.
REQUEST = SampleRequest(
    steps=20, sampler_name="Euler a", cfg_scale=7.0, width=128, height=128, randn_source="CPU",
)
PER_PROMPT = 4


@dataclass(frozen=True)
class Drawn:
    """The pictures of one prompt, and what the judge reads from each."""

    prompt: str
    pictures: tuple[Image.Image, ...]
    readings: tuple[Reading, ...]


def open_model(file: str | Path, device: str) -> LoadedModel:
    """A checkpoint to draw with, in 32 bit."""
    return load_model(open_checkpoint(file), device, torch.float32)


def draw(
    model: LoadedModel, judge: Judge, prompts: Sequence[str], name: str, token: CancelToken,
    per_prompt: int = PER_PROMPT,
) -> Iterator[Event]:
    """Yields progress and returns a `Drawn` for each prompt; prompt number i starts at seed 1000 i.

    Raises `Cancelled` when the user stops it.
    """
    found, around = [], Surroundings(encodings=EncodingCache())
    for number, prompt in enumerate(prompts):
        request = replace(REQUEST, prompt=prompt, seed=1000 * number, batch_size=per_prompt)
        pictures = tuple(picture.image for picture in generate(model, request, token, surroundings=around))
        found.append(Drawn(prompt, pictures, tuple(read(judge, pictures))))
        yield Phase(name=name, done=number + 1, total=len(prompts), unit="prompts")
    return found
