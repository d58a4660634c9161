"""A checkpoint: its tensors under their LDM/SGM keys, what they make up, and the description beside them."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from lib_sdtrain.errors import Problem, UserError
from lib_sdtrain.model.detection import detect
from lib_sdtrain.model.ema_forms import with_average
from lib_sdtrain.model.family import EPSILON, V_MARKER, V_PREDICTION, Family
from lib_sdtrain.model.keys import TEXT_ENCODERS, part_rows
from lib_sdtrain.model.keys.unet import EMA_PREFIX
from lib_sdtrain.model.keys.vae import PREFIX as VAE_PREFIX
from lib_sdtrain.model.kinds import describe_not_a_checkpoint
from lib_sdtrain.model.ldm_config import apply_config, config_beside
from lib_sdtrain.model.ldm_yaml import describe
from lib_sdtrain.model.metadata import PREDICTION
from lib_sdtrain.model.module_file import as_checkpoint, is_module_file
from lib_sdtrain.model.tensorfile import FOLDER, TensorFile, open_tensors

EMBEDDED = {"toybox": Path(__file__).parent.parent / "toybox" / "toybox.safetensors"}
_BARE_TEXT = "cond_stage_model.transformer."
_TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
_SGM_TEXT, _LDM_TEXT = "conditioner.embedders.0.", "cond_stage_model."
_SGM_LAST_NORM = f"{_SGM_TEXT}model.ln_final.weight"
_SD2_WIDTH = 1024
# what kohya's scripts write into the metadata
_METADATA_PREDICTION = {"epsilon": EPSILON, "v": V_PREDICTION, "v_prediction": V_PREDICTION}


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `file_keys` maps every LDM/SGM key to its name in the file (older files differ)."""

    path: Path
    tensors: TensorFile
    family: Family
    file_keys: dict[str, str]
    config: Path | None = None

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(self.tensors.nbytes(key) for key in self.file_keys.values())

    @property
    def config_text(self) -> str | None:
        """The `.yaml` for a child: the one beside it, or one that says the same where a file's keys cannot.

        That is so for a folder of no published size, and for v-prediction that the folder's scheduler or the file's
        metadata tell. A file without heads to describe is left to its metadata.
        """
        if self.config:
            return self.config.read_text("utf-8")
        family, folder = self.family, self.tensors.container == FOLDER
        says_v = family.prediction_type == V_PREDICTION and not family.prediction_guessed
        unsaid = says_v and V_MARKER not in self.file_keys
        if folder and (family.scaled_down or says_v):
            return describe(family)
        return describe(family) if unsaid and family.unet.heads is not None else None

    @property
    def parts(self) -> dict[str, bool]:
        """Which parts are complete: unet, text_encoder (all of the family's), vae; and whether there is an EMA."""
        rows = part_rows(self.family)
        whole = {part: all(row.key in self.file_keys for row in table) for part, table in rows.items()}
        texts = [whole[part] for part in TEXT_ENCODERS if part in whole]
        return {
            "unet": whole["unet"], "text_encoder": all(texts) and bool(texts), "vae": whole["vae"],
            "ema": any(key.startswith(EMA_PREFIX) for key in self.file_keys),
        }

    def keys(self) -> list[str]:
        """LDM/SGM keys, in the order of the file."""
        return list(self.file_keys)

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor of an LDM/SGM key, as stored."""
        return self.tensors.tensor(self.file_keys[key])

    def forget_pages(self) -> None:
        """See `TensorFile.forget_pages`."""
        self.tensors.forget_pages()

    def shape(self, key: str) -> tuple[int, ...]:
        """Its shape."""
        return self.tensors.shape(self.file_keys[key])

    def parameter_counts(self) -> dict[str, int]:
        """Number of weights of each part that the family has."""
        return dict(self._counts)

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {
            part: sum(math.prod(self.shape(row.key)) for row in table if row.key in self.file_keys)
            for part, table in part_rows(self.family).items()
        }


def find_checkpoint(name: str) -> Path:
    """The file that a name or path means; `toybox` is the model that comes with SD Train."""
    return EMBEDDED.get(name, Path(name).expanduser())


def open_checkpoint(name: str | Path) -> Checkpoint:
    """Open a checkpoint by path (or `toybox`): .safetensors, .ckpt, or a diffusers folder.

    Raises `UserError` when there is none, it cannot be read, or it is something else (a LoRA, say).
    """
    path = find_checkpoint(str(name))
    tensors = open_tensors(path)
    shapes = tensors.shapes()
    if any(key.startswith("unet/") for key in shapes):
        from lib_sdtrain.model.diffusers_folder import open_folder

        tensors, family = open_folder(path, tensors)
        for marker in family.markers:
            tensors.mark(marker)
        return Checkpoint(path, tensors, family, dict(zip(tensors.keys(), tensors.keys(), strict=True)))
    tensors = _under_our_keys(tensors)
    shapes = tensors.shapes()
    wrong = describe_not_a_checkpoint(shapes)
    if wrong:
        raise UserError(wrong[0], where=str(path), fix=wrong[1])
    file_keys = canonical_keys(shapes)
    try:
        family = detect({canonical: shapes[key] for canonical, key in file_keys.items()})
    except UserError as error:
        raise UserError([Problem(p.what, str(path), p.fix) for p in error.problems]) from error
    told = _METADATA_PREDICTION.get(tensors.metadata.get(PREDICTION, ""))
    if told:
        family = family.with_prediction_type(told)
    config = config_beside(path)
    if config:
        family = apply_config(family, config, has_vae=any(key.startswith(VAE_PREFIX) for key in file_keys))
    else:  # a description says of itself what the model predicts
        for marker in family.markers:
            tensors.mark(marker)
            file_keys[marker] = marker
    return Checkpoint(path, tensors, family, file_keys, config)


def _under_our_keys(tensors: TensorFile) -> TensorFile:
    """The file of another program as if LDM had written it: its moving average, its modules' names."""
    try:
        tensors = with_average(tensors)
        return as_checkpoint(tensors) if is_module_file(tensors.shapes()) else tensors
    except UserError as error:
        raise UserError([Problem(p.what, p.where or str(tensors.path), p.fix) for p in error.problems]) from error


def canonical_keys(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """LDM/SGM key -> key of the file. SD2 Turbo has SD2's text encoder where SDXL has its first."""
    turbo = shapes.get(_SGM_LAST_NORM, ())[:1] == (_SD2_WIDTH,)
    if turbo:
        return {_LDM_TEXT + key.removeprefix(_SGM_TEXT) if key.startswith(_SGM_TEXT) else key: key for key in shapes}
    return {canonical_key(key): key for key in shapes}


def canonical_key(key: str) -> str:
    """The LDM key of a file's key: the earliest files leave `text_model.` out of SD1's text encoder."""
    rest = key.removeprefix(_BARE_TEXT)
    if rest != key and rest.startswith(_TEXT_PARTS):
        return f"{_BARE_TEXT}text_model.{rest}"
    return key
