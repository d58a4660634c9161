"""A VAE from a file of its own, in whatever form people have it, under the keys of a checkpoint."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.detection import detect_vae
from lib_sdtrain.model.family import VAEConfig
from lib_sdtrain.model.keys import Row, vae_rows
from lib_sdtrain.model.keys.vae import PREFIX, former_names, is_attention_matrix
from lib_sdtrain.model.kinds import describe_not_a_checkpoint
from lib_sdtrain.model.tensorfile import TensorFile, open_tensors


@dataclass(frozen=True)
class VaeFile:
    """A VAE's tensors by checkpoint key (`first_stage_model. ...`). `sources` maps each to its name in the file."""

    path: Path
    file: TensorFile
    sources: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    def keys(self) -> list[str]:
        """Checkpoint keys of the VAE."""
        return list(self.sources)

    def dtype(self, key: str) -> torch.dtype:
        """Number format in the file."""
        return self.file.dtype(self.sources[key])

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape in a checkpoint."""
        return self.shapes[key]

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor in the shape that a checkpoint has it."""
        return self.file.tensor(self.sources[key]).reshape(self.shapes[key])

    def forget_pages(self) -> None:
        """See `TensorFile.forget_pages`."""
        self.file.forget_pages()


def open_vae(path: str | Path, config: VAEConfig, exact: bool = True) -> VaeFile:
    """Open the VAE in a VAE file (LDM or diffusers names), a whole checkpoint, or a diffusers folder.

    Raises `UserError` when it holds no VAE, or one of another architecture than `config`; unless `exact`,
    one of another size will do as long as its latents are the same.
    """
    path = Path(path).expanduser()
    file = open_tensors(path)
    found = file.shapes()
    if not exact:
        config = _own_size(found, config)
    rows = vae_rows(config)
    sources = {row.key: name for row in rows if (name := _name_in_file(row, found)) is not None}
    if not sources:
        what, _ = describe_not_a_checkpoint(found) or ("this checkpoint holds no VAE", "")
        what = what.replace("not a checkpoint", "not a VAE")
        raise UserError(what, where=str(path), fix="give a VAE file, or a checkpoint with one")
    missing = [row.key for row in rows if row.key not in sources]
    if missing:
        raise UserError(
            f"the VAE is of another architecture, or incomplete: {missing[0]} and {len(missing) - 1} more are missing",
            where=str(path),
        )
    shapes = {row.key: _shape(row, found[sources[row.key]]) for row in rows}
    if exact and (differing := _differing(detect_vae(shapes), config)):
        raise UserError(f"the VAE is of another architecture than the model's: {differing}", where=str(path))
    return VaeFile(path, file, sources, shapes)


def _differing(own: VAEConfig | None, config: VAEConfig) -> str:
    """What is not as in `config`, with both values; empty where they are the same."""
    pairs = zip(asdict(own).items(), asdict(config).values(), strict=True) if own else ()
    return ", ".join(f"{name} {value} in place of {wanted}" for (name, value), wanted in pairs if value != wanted)


def _own_size(found: Mapping[str, tuple[int, ...]], config: VAEConfig) -> VAEConfig:
    own = detect_vae({f"{PREFIX}{key.removeprefix(PREFIX)}": shape for key, shape in found.items()})
    same = own is not None and (own.z_channels, own.downscale) == (config.z_channels, config.downscale)
    return own if own is not None and same else config


def _name_in_file(row: Row, found: Mapping[str, tuple[int, ...]]) -> str | None:
    (name,) = row.names
    names = (name, *former_names(name))
    candidates = (row.key, row.key.removeprefix(PREFIX), *names, *(f"vae/{known}" for known in names))
    return next((candidate for candidate in candidates if candidate in found), None)


def _shape(row: Row, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1, 1) if is_attention_matrix(row.key) and len(shape) == 2 else shape
