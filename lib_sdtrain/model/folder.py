"""A diffusers model folder as one table of tensors: keys are `<part>/<key in the part's file>`."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lib_sdtrain.errors import Problem, UserError
from lib_sdtrain.model.mapped import Contents, read_safetensors
from lib_sdtrain.model.torchfile import read_torch_file
from lib_sdtrain.textfiles import parse_json

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SUFFIXES = (".safetensors", ".bin")
_VARIANTS = ("", ".fp16", ".non_ema")


def read_folder(path: Path) -> Contents:
    """Map every part of a diffusers folder (safetensors before .bin, full before fp16, shards joined).

    Raises `UserError` when the folder holds none of the parts, or a part holds no weights.
    """
    parts = [part for part in PARTS if (path / part).is_dir()]
    if not parts:
        raise UserError(
            "this folder is not a model in diffusers' layout (no unet, vae or text_encoder folder in it)",
            fix="name a .safetensors or .ckpt file, or a diffusers folder",
        )
    contents = Contents({})
    for part in parts:
        for file in _weight_files(path / part):
            try:
                found = read_safetensors(file) if file.suffix == ".safetensors" else read_torch_file(file)
            except UserError as error:
                raise UserError([Problem(p.what, str(file), p.fix) for p in error.problems]) from error
            contents.metadata = contents.metadata or found.metadata  # each part's file says the same
            contents.tensors |= {f"{part}/{key}": entry for key, entry in found.tensors.items()}
    return contents


def _weight_files(folder: Path) -> list[Path]:
    for file in _candidates(folder):
        if file.is_file():
            return [file]
        index = file.with_name(f"{file.name}.index.json")
        if index.is_file():
            return _shards(index)
    raise UserError("no weights in this folder", where=str(folder), fix="expected a .safetensors or .bin file")


def _candidates(folder: Path) -> Iterator[Path]:
    for variant in _VARIANTS:
        for suffix in _SUFFIXES:
            for stem in _STEMS:
                yield folder / f"{stem}{variant}{suffix}"


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(parse_json(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError("the list of weight files is damaged", where=str(index)) from error
    files = [index.parent / name for name in names]
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise UserError("a file of the weights is missing", where=str(file))
    return files
