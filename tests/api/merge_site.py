"""A folder with small checkpoints, and the merge service on it."""
from __future__ import annotations

from pathlib import Path

import torch

from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.jobs import JobRunner
from lib_sdtrain.model.writer import write_checkpoint
from tests.merge.models import UNET, state, write
from tests.tiny import ldm_yaml, random_tensors, tiny_family, write_tiny


def keyed_site(folder: Path) -> MergeService:
    """Two SD1 checkpoints and one SDXL with every key and hardly any weights; B differs from A in IN04 only."""
    models = folder / "models"
    models.mkdir(parents=True)
    b = state(seed=1)
    b[UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"] *= 2
    write(models / "a.safetensors", state(seed=1))
    write(models / "b.safetensors", b)
    write(models / "xl.safetensors", state("sdxl", seed=3))
    return service_of(folder)


def drawable_site(folder: Path) -> None:
    """Two tiny checkpoints that differ everywhere and can draw."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    write_tiny(models / "one.safetensors")
    family = tiny_family()
    generator = torch.Generator().manual_seed(1)
    other = {key: _moved(value, generator) for key, value in random_tensors(family).items()}
    write_checkpoint(models / "two.safetensors", other, {"format": "pt"}, ldm_yaml(family))


def _moved(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if value.dtype != torch.float16:
        return value
    return (value.float() + 0.05 * torch.randn(value.shape, generator=generator)).half()


def service_of(folder: Path) -> MergeService:
    """The service of a standalone host in `folder`."""
    host = StandaloneHost(folder)
    return MergeService(host, JobRunner(host))
