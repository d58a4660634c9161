"""Reading recipes: ours, the WebUI merger's, SuperMerger's metadata and its history file."""
from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.metadata import MERGE, OURS, RECIPE, lineage, readable
from lib_sdtrain.textfiles import parse_json, parse_yaml, read_text

_BINARY = {".safetensors", ".ckpt", ".pt", ".bin"}
_WEBUI_METHODS = {
    "Weighted sum": "weighted_sum", "Add difference": "add_difference", "No interpolation": "no_interpolation",
}  # fmt: skip
_MODES = {"Weight": "weighted_sum", "Add": "add_difference", "Triple": "triple_sum", "sum Twice": "sum_twice"}
_CALCMODES = {
    "cosineA": "cosine_a", "cosineB": "cosine_b", "trainDifference": "train_difference",
    "smoothAdd": "smooth_add_difference", "smoothAdd MT": "smooth_add_difference", "extract": "extract",
    "tensor": "tensor_swap", "tensor2": "tensor_swap_columns", "self": "self",
}  # fmt: skip
_TWO_WEIGHTS = {"triple_sum", "sum_twice", "extract", "tensor_swap", "tensor_swap_columns"}
_MODELS_OF = {"add_difference", "triple_sum", "sum_twice", "train_difference", "smooth_add_difference", "extract"}


@dataclass(frozen=True)
class Recipe:
    """A merge to be made again. `parents`: role -> SHA-256, or its beginning. `known`: SHA-256 -> name, legacy hash."""

    settings: dict[str, Any]
    parents: dict[str, str]
    known: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_recipe(text: str) -> Recipe:
    """The recipe in a merged checkpoint, a JSON or YAML file, or a line of SuperMerger's history (FILE.csv:ID).

    Raises `UserError` when the file has none, or one that cannot be repeated.
    """
    head, _, line = text.rpartition(":")
    if head.endswith(".csv"):
        return _from_history(Path(head).expanduser(), line)
    path = Path(text).expanduser()
    if path.suffix == ".csv":
        raise UserError("a history has many merges", where=str(path), fix=f"write {path}:ID")
    if path.suffix in _BINARY:
        from lib_sdtrain.model.tensorfile import open_tensors

        with open_tensors(path) as tensors:
            return _from_document(readable(tensors.metadata), str(path))
    document = parse_yaml(read_text(path), str(path))
    if not isinstance(document, dict):
        raise UserError("this is not a recipe", where=str(path))
    return _from_document(document, str(path))


def _from_document(document: Mapping[str, Any], where: str) -> Recipe:
    inner = {name: _json(document.get(name)) for name in (OURS, RECIPE)}
    known = _known(document)
    for found in (inner[OURS], document):
        if isinstance(found, dict) and found.get("kind") == MERGE and "parents" in found:
            return Recipe(dict(found["settings"]), dict(found["parents"]), known)
    for found in (inner[RECIPE], document):
        if isinstance(found, dict) and "primary_model_hash" in found:
            return _from_webui(found, known, where)
        if isinstance(found, dict) and "model_a" in found:
            return _from_supermerger(found, known, where)
    raise UserError("there is no merge recipe in this file", where=where, fix="give a merged checkpoint or its recipe")


def _json(value: Any) -> Any:
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _known(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    models = lineage({name: value if isinstance(value, str) else json.dumps(value) for name, value in document.items()})
    return {
        digest: (str(entry.get("name") or ""), str(entry.get("legacy_hash") or ""))
        for digest, entry in models.items() if isinstance(entry, dict)
    }  # fmt: skip


def _from_webui(recipe: Mapping[str, Any], known: dict[str, tuple[str, str]], where: str) -> Recipe:
    method = _WEBUI_METHODS.get(str(recipe.get("interp_method")))
    if method is None:
        raise UserError(f"its method {recipe.get('interp_method')!r} is not known here", where=where)
    settings: dict[str, Any] = {"method": method, "arithmetic": "fp16"}
    if method != "no_interpolation":
        settings["alpha"] = recipe.get("multiplier")
    if recipe.get("save_as_half"):
        settings["dtype"] = "fp16"
    if recipe.get("discard_weights"):
        settings["discard"] = recipe["discard_weights"]
    roles = {"a": "primary_model_hash", "b": "secondary_model_hash", "c": "tertiary_model_hash"}
    parents = {role: str(recipe[name]) for role, name in roles.items() if recipe.get(name)}
    vae = recipe.get("bake_in_vae")
    notes = () if vae in (None, "", "None") else (f"the recipe bakes in the VAE {vae}: give it with --vae",)
    return Recipe(settings, parents, known, notes)


def _method_of(mode: str, calcmode: str, where: str) -> str:
    if calcmode in _CALCMODES:
        return _CALCMODES[calcmode]
    found = next((name for start, name in _MODES.items() if mode.startswith(start)), None)
    if found is None or calcmode not in ("", "normal"):
        raise UserError(f"its method {mode!r}, {calcmode!r} is not known here", where=where)
    return found


def _from_supermerger(recipe: Mapping[str, Any], known: dict[str, tuple[str, str]], where: str) -> Recipe:
    row = {
        "mode": recipe.get("mode"), "calcmode": recipe.get("calcmode"), "use MBW": recipe.get("mbw"),
        "alpha": recipe.get("base_alpha"), "beta": recipe.get("base_beta"),
        "weights alpha": recipe.get("weights_alpha_orig") or recipe.get("weights_alpha"),
        "weights beta": recipe.get("weights_beta_orig") or recipe.get("weights_beta"),
        "elements": recipe.get("elemental_merge"),
        **{f"model {role.upper()}": recipe.get(f"model_{role}") for role in "abc"},
    }  # fmt: skip
    return _from_row(row, known, where)


def _from_history(path: Path, number: str) -> Recipe:
    rows = list(csv.reader(io.StringIO(read_text(path))))
    names = ["ID", "time", "name", "weights alpha", "weights beta", "model A", "model B", "model C", "alpha", "beta",
             "mode", "use MBW", "custom name", "save", "use ID", "elements", "calcmode"]  # fmt: skip
    found = [row for row in rows[1:] if row and row[0].lstrip("0") == number.lstrip("0")]
    if not found:
        raise UserError(f"there is no merge {number!r}", where=str(path), fix=f"IDs go from 1 to {len(rows) - 1}")
    return _from_row(dict(zip(names, found[-1], strict=False)), {}, f"{path}, merge {number}")


def _from_row(row: Mapping[str, Any], known: dict[str, tuple[str, str]], where: str) -> Recipe:
    method = _method_of(str(row.get("mode") or ""), str(row.get("calcmode") or ""), where)
    by_block = str(row.get("use MBW")) == "True"
    settings: dict[str, Any] = {"method": method, "blocks": "supermerger-2023"}
    for name in ("alpha", "beta") if method in _TWO_WEIGHTS else ("alpha",):
        value = row.get(f"weights {name}") if by_block else row.get(name)
        settings[f"weights_{name}" if by_block else name] = _numbers(value)
    elements = row.get("elements")
    if elements and elements != "[]":
        settings["elements"] = ",".join(elements) if isinstance(elements, list) else str(elements)
    roles = ("a", "b", "c") if method in _MODELS_OF else ("a", "b")
    parents = {role: str(row[f"model {role.upper()}"]).strip('"') for role in roles if row.get(f"model {role.upper()}")}
    return Recipe(settings, parents, known, (f"{where}: block convention supermerger-2023 is assumed",))


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).strip('"')
