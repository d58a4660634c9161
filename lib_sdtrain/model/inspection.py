"""What a model file is, for people and programs: the document of `inspect`."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.checkpoint import Checkpoint, open_checkpoint
from lib_sdtrain.model.dtypes import short_name
from lib_sdtrain.model.hashes import HashCache, Progress, addnet_hash, autov2, legacy_hash, sha256
from lib_sdtrain.model.keys import UNET, VAE
from lib_sdtrain.model.kinds import CHECKPOINT, kind_of
from lib_sdtrain.model.metadata import lineage, readable, recipe_of
from lib_sdtrain.model.parts import EMA, EMA_COUNTERS, TEXT_ENCODER, part_of
from lib_sdtrain.model.tensorfile import SAFETENSORS, TensorFile, open_tensors

_NO_FAMILY = {"family": None, "variant": None, "prediction_type": None, "resolution": None}
_ADDNET_DIGITS = 12


def inspect(path: str | Path, cache: HashCache | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Describe a checkpoint, LoRA, embedding, VAE or diffusers folder.

    `kind` says which of them it is; `family`, `variant`, `prediction_type` and `resolution` are None but
    for a checkpoint of a known family. `parts` tells which parts are complete, `dtypes` the number formats
    of each part, `metadata` what the header carries (JSON in it parsed), `recipe` how the file was made,
    `lineage` what is known of its ancestors (SHA-256 -> name, legacy hash, recipe), `notes` what people
    should know. A folder has no hashes. Raises `UserError` for a file that cannot be read.
    """
    path = Path(path)
    with open_tensors(path) as tensors:
        notes = list(tensors.notes)
        kind = kind_of(tensors.shapes())
        checkpoint = _checkpoint(path, notes) if kind == CHECKPOINT else None
        return {
            "file": path.name,
            "kind": kind,
            **(_family(checkpoint, notes) if checkpoint else _NO_FAMILY),
            "parts": checkpoint.parts if checkpoint else _parts_by_name(tensors, kind),
            "dtypes": _dtypes(checkpoint.tensors if checkpoint else tensors),
            "tensors": len(tensors),
            "bytes": sum(tensors.nbytes(key) for key in tensors.keys()),  # noqa: SIM118 - not a dict
            **_hashes(path, tensors, kind, cache, progress),
            "metadata": readable(tensors.metadata),
            "recipe": recipe_of(tensors.metadata),
            "lineage": lineage(tensors.metadata),
            "notes": notes,
        }


def _checkpoint(path: Path, notes: list[str]) -> Checkpoint | None:
    """The opened checkpoint, or None with a note when it is of no family known here."""
    try:
        return open_checkpoint(path)
    except UserError as error:
        notes.extend(problem.what for problem in error.problems)
        return None


def _family(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    family = checkpoint.family
    notes.extend(note for note in checkpoint.tensors.notes if note not in notes)
    if family.prediction_guessed:
        notes.append(f"nothing names the prediction type: {family.prediction_type} is a guess")
    if family.scaled_down:
        notes.append("the model is not of the published size")
    return {
        "family": family.name, "variant": family.variant,
        "prediction_type": family.prediction_type, "resolution": family.resolution,
    }  # fmt: skip


def _parts_by_name(tensors: TensorFile, kind: str) -> dict[str, bool]:
    present = {kind, *(part_of(key) for key in tensors.keys())}  # noqa: SIM118
    return {part: part in present for part in (UNET, TEXT_ENCODER, VAE, EMA)}


def _dtypes(tensors: TensorFile) -> dict[str, str]:
    """Part -> its number formats ("fp16", or "fp16+fp32" when mixed); counters and integers left out."""
    found: dict[str, set[str]] = {}
    for key in tensors.keys():  # noqa: SIM118
        dtype = tensors.dtype(key)
        if dtype.is_floating_point and key not in EMA_COUNTERS:
            found.setdefault(part_of(key), set()).add(short_name(dtype))
    return {part: "+".join(sorted(names)) for part, names in sorted(found.items())}


def _hashes(
    path: Path, tensors: TensorFile, kind: str, cache: HashCache | None, progress: Progress | None
) -> dict[str, str | None]:
    if not path.is_file():
        return {"sha256": None, "autov2": None, "legacy_hash": None}
    digest = cache.sha256(path, progress) if cache else sha256(path, progress)
    hashes: dict[str, str | None] = {"sha256": digest, "autov2": autov2(digest), "legacy_hash": legacy_hash(path)}
    if kind == "lora" and tensors.container == SAFETENSORS:
        hashes["addnet_hash"] = addnet_hash(path)[:_ADDNET_DIGITS]
    return hashes
