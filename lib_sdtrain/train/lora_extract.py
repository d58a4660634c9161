"""A LoRA from two checkpoints: the best approximation of low rank to what one has over the other, layer by layer.

For each layer's change D the product of `rank` singular vectors (Eckart & Young 1936), found by random projection with
power iterations (Halko et al. 2011). Half of each singular value goes into either factor.
"""
from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Saved
from lib_sdtrain.model.checkpoint import Checkpoint, find_checkpoint, open_checkpoint
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, Row, part_rows
from lib_sdtrain.model.ldm_config import config_beside
from lib_sdtrain.model.metadata import EXTRACT, parent_of, provenance
from lib_sdtrain.model.overwriting import check_result
from lib_sdtrain.settings.run_method import MethodSettings
from lib_sdtrain.train.child import versions
from lib_sdtrain.train.lora_choice import Choice, chosen_layers, chosen_names
from lib_sdtrain.train.lora_file import family_metadata, write_hashed

SPARE = 8
ITERATIONS = 4


@dataclass(frozen=True)
class Layer:
    """A layer to look at: its row, which of the row's parts it is, and what its LoRA is called."""

    row: Row
    index: int
    choice: Choice


def extract(
    base: Path, tuned: Path, out: Path, method: MethodSettings, token: CancelToken | None = None
) -> Iterator[Event]:
    """Write to `out` the LoRA that makes `base` into `tuned`, as near as its rank allows. Yields progress.

    Layers that are equal are left out. Raises `UserError` when the two are of different families, or equal, and when
    `out` is one of them.
    """
    token, began = token or CancelToken(), time.monotonic()
    _check_out(out, [find_checkpoint(str(path)) for path in (base, tuned)])
    one, other = open_checkpoint(base), open_checkpoint(tuned)
    _check_kin(one, other)
    layers = list(_layers(one, other, method))
    tensors: dict[str, Tensor] = {}
    energy = {"all": 0.0, "kept": 0.0}
    for done, layer in enumerate(layers, 1):
        token.check()
        change = _weight(other, layer) - _weight(one, layer)
        if bool(change.any()):
            down, up = low_rank(change.flatten(1), layer.choice.rank, torch.Generator().manual_seed(0))
            energy["all"] += float(change.square().sum())
            energy["kept"] += float((up @ down).square().sum())
            tensors |= _named(layer.choice, down, up, change.shape)
        yield Phase(name="looking for what has changed", done=done, total=len(layers), unit="layers")
    if not tensors:
        raise UserError("the two are equal in every layer that a LoRA changes", where=str(tuned), fix="give another")
    written = write_hashed(out, tensors, _metadata(one, other, method))
    yield Saved(file=str(written.path), kind="lora", sha256=written.sha256)
    yield Finished(result={
        "out": str(written.path), "sha256": written.sha256, "layers": len(tensors) // 3,
        "kept": round(energy["kept"] / energy["all"], 6), "seconds": round(time.monotonic() - began, 3),
    })


def low_rank(change: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(down (rank, columns), up (rows, rank)) whose product up @ down is nearest to `change` (rows, columns)."""
    rank = min(rank, *change.shape)
    width = min(rank + SPARE, *change.shape)
    sketch = change @ torch.randn(change.shape[1], width, generator=generator)
    for _ in range(ITERATIONS):
        sketch = change @ (change.T @ torch.linalg.qr(sketch).Q)
    basis = torch.linalg.qr(sketch).Q
    left, sizes, right = torch.linalg.svd(basis.T @ change, full_matrices=False)
    root = sizes[:rank].sqrt()
    return root[:, None] * right[:rank], basis @ left[:, :rank] * root


def _check_out(out: Path, models: list[Path]) -> None:
    problems = Problems()
    sides = [side for path in models if (side := config_beside(path))]
    check_result(out, [*models, *sides], problems)
    problems.raise_if_any()


def _check_kin(one: Checkpoint, other: Checkpoint) -> None:
    if (one.family.unet, one.family.text) != (other.family.unet, other.family.text):
        raise UserError(
            f"it is {other.family.name}, the other is {one.family.name}, or of another size", where=str(other.path),
            fix="give two checkpoints of one family",
        )


def _layers(one: Checkpoint, other: Checkpoint, method: MethodSettings) -> Iterator[Layer]:
    for part in (UNET, *TEXT_ENCODERS[: len(one.family.text)]):
        if not method.trains(part):
            continue
        chosen = chosen_layers(one.family, part, method)
        for row in part_rows(one.family)[part]:
            if row.key in one.file_keys and row.key in other.file_keys:
                for index, choice in chosen_names(row, chosen):
                    yield Layer(row, index, choice)


def _weight(checkpoint: Checkpoint, layer: Layer) -> Tensor:
    whole = checkpoint.tensor(layer.row.key).float()
    whole = whole.t() if layer.row.transposed else whole
    return whole.chunk(len(layer.row.names))[layer.index]


def _named(choice: Choice, down: Tensor, up: Tensor, shape: torch.Size) -> dict[str, Tensor]:
    """The file's tensors; alpha is the rank, so that the LoRA counts whole at weight 1."""
    rank, trailing = len(down), shape[2:]
    return {
        f"{choice.name}.lora_down.weight": down.reshape(rank, shape[1], *trailing).half().contiguous(),
        f"{choice.name}.lora_up.weight": up.reshape(shape[0], rank, *(1 for _ in trailing)).half().contiguous(),
        f"{choice.name}.alpha": torch.tensor(float(rank), dtype=torch.float16),
    }


def _metadata(base: Checkpoint, tuned: Checkpoint, method: MethodSettings) -> dict[str, str]:
    parents = {role: parent_of(one.path, one.tensors.metadata) for role, one in (("base", base), ("tuned", tuned))}
    settings = {"rank": method.rank, "conv_rank": method.conv_rank, "block_weights": method.block_weights}
    found = provenance(EXTRACT, settings, parents, versions()) | family_metadata(base.family, method)
    return found | {"ss_network_alpha": str(method.rank)}
