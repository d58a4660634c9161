"""The memory of training steps, of the VAE and of previews, by model: a table for published models and toybox.

Playing a step of SDXL through takes seconds, too long for a page that shows its plan at every change: what was played
once is in `moments.json`, written by

    python -m lib_sdtrain.train.memory.table

Other models, and choices of layers that it does not have, are played through when they are asked for.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path

from lib_sdtrain.model.build import empty_module
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import PUBLISHED, Family
from lib_sdtrain.model.keys import VAE
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA, MethodSettings
from lib_sdtrain.train.memory import plays
from lib_sdtrain.train.memory.counting import Moment, peak
from lib_sdtrain.train.memory.plays import Step

FILE = Path(__file__).with_name("moments.json")
RANKS = (8, 24)
"""What a LoRA takes grows evenly with its rank: it is played at these two."""
TOYBOX = "toybox"
DRAW, ENCODE, DECODE = "draw", "encode", "decode"


def step_peak(family: Family, step: Step, batch: int, pixels: int) -> int:
    """Bytes that a training step takes at its worst moment, beside weights, optimizer and average; `pixels` latent."""
    method = step.method
    if method.kind != LORA:
        return peak(_step(family, step), batch, pixels)

    def between(rank: int, conv: bool) -> float:
        low, high = (peak(_step(family, _of_rank(step, end, conv)), batch, pixels) for end in RANKS)
        return low + (high - low) * (rank - RANKS[0]) / (RANKS[1] - RANKS[0])

    plain = between(method.rank, conv=False)
    if method.conv_rank is not None:
        plain += between(method.conv_rank, conv=True) - between(method.conv_rank, conv=False)
    return round(plain)


def other_peak(family: Family, what: str, pixels: int, together: int = 1) -> int:
    """Bytes that `draw`, `encode` or `decode` takes beside the weights: of one picture of so many latent pixels, or of
    some `together`.
    """
    return peak(_other(family, what), together, pixels)


def is_known(family: Family, method: MethodSettings) -> bool:
    """Whether the table has a model's steps; others are played through, which takes seconds."""
    return bool(_known(family)) and not method.block_weights


@lru_cache(maxsize=8)
def vae_weights(family: Family) -> int:
    """How many weights the family's VAE has."""
    return sum(weight.numel() for weight in empty_module(family, VAE).parameters())


def _of_rank(step: Step, rank: int, conv: bool) -> Step:
    return replace(step, method=replace(step.method, rank=rank, conv_rank=rank if conv else None))


@lru_cache(maxsize=256)
def _step(family: Family, step: Step) -> list[Moment]:
    found = _found(family, name_of(step)) if is_known(family, step.method) else []
    return found or plays.step_moments(family, step)


@lru_cache(maxsize=32)
def _other(family: Family, what: str) -> list[Moment]:
    return _found(family, what) or _PLAYED[what](family)


def _found(family: Family, name: str) -> list[Moment]:
    """A row of the table, empty where there is none."""
    return [Moment(*moment) for moment in _read().get(_known(family), {}).get(name, ())]


_PLAYED: dict[str, Callable[[Family], list[Moment]]] = {
    DRAW: plays.draw_moments,
    ENCODE: lambda family: plays.vae_moments(family, encode=True),
    DECODE: lambda family: plays.vae_moments(family, encode=False),
}


def name_of(step: Step) -> str:
    """What the table calls a step: `full unet+text_encoder half checkpointing`, `lora 4 conv unet`."""
    method = step.method
    trained = [part for part in ("unet", "text_encoder", "text_encoder_2") if method.trains(part)]
    words = [method.kind]
    if method.kind == LORA:
        words += [str(method.rank), *["conv"] * (method.conv_rank is not None)]
    if method.kind != EMBEDDING:
        words.append("+".join(trained))
    words += [word for word in ("half", "checkpointing", "in_backward") if getattr(step, word)]
    return " ".join(words)


@lru_cache(maxsize=32)
def _known(family: Family) -> str:
    """What the table calls a model of this architecture; empty for one that it does not have."""
    return next((name for name, other in families().items() if _shape(other) == _shape(family)), "")


def _shape(family: Family) -> object:
    """What the memory depends on; the channels of an inpainting model's first layer are too few to count."""
    return replace(family.unet, in_channels=0, heads=None), family.text, family.vae


@lru_cache(maxsize=1)
def families() -> dict[str, Family]:
    """The models of the table."""
    return {**PUBLISHED, TOYBOX: open_checkpoint(TOYBOX).family}


@lru_cache(maxsize=1)
def _read() -> dict[str, dict[str, list[list[int]]]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def steps_of(family: Family) -> Iterator[Step]:
    """The steps that the table has for a model."""
    texts = [(True, False, False), (True, True, False)] + [(True, True, True)] * (len(family.text) > 1)
    ways = [MethodSettings(EMBEDDING)]
    for unet, text, text_2 in texts:
        method = MethodSettings(FULL, unet, text, text_2)
        ways.append(method)
        ways += [replace(method, kind=LORA, rank=rank, conv_rank=conv) for rank in RANKS for conv in (None, rank)]
    for method, half, checkpointing in product(ways, (False, True), (False, True)):
        yield Step(method, checkpointing, half)
        if method.kind == FULL:
            yield Step(method, checkpointing, half, in_backward=True)


def write_table(file: Path = FILE, tell: Callable[[str], None] = print) -> None:
    """Play everything through, for a quarter of an hour, and write the table."""
    table = {}
    for name, family in families().items():
        rows = table[name] = {what: play(family) for what, play in _PLAYED.items()}
        for step in steps_of(family):
            tell(f"{name} {name_of(step)}")
            rows[name_of(step)] = plays.step_moments(family, step)
    lines = [f" {json.dumps(name)}: {{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in
             rows.items()) + "\n }" for name, rows in table.items()]  # fmt: skip
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write_table()
