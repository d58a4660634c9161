"""Provenance: how the weights came to be, written into the file in the WebUI merger's form where it has one.

Only what determines the weights goes in, sorted and without dates or folders, so that the same work gives
the same file. Three entries of the safetensors metadata (text to text, JSON inside):

- `sdtrain`: kind of work, settings, data hash, the parents' SHA-256 by role, versions;
- `sd_merge_recipe` (merges only): as the WebUI's merger writes it, with `"type": "sdtrain"`;
- `sd_merge_models`: SHA-256 -> name, legacy hash and recipe of every ancestor, as the WebUI's merger nests them.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.model.hashes import HashCache, Progress, legacy_hash, model_digest

TRAIN, MERGE, CONVERT, EXTRACT = "train", "merge", "convert", "extract"
OURS, RECIPE, MODELS = "sdtrain", "sd_merge_recipe", "sd_merge_models"
PREDICTION = "modelspec.prediction_type"
FORMAT = 1

# Entries that describe one exact file: a converted file must not inherit them.
_OF_ONE_FILE = (OURS, RECIPE, MODELS, "format", "modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


@dataclass(frozen=True)
class Parent:
    """A model that this one was made from. `name` is its file name without folder, for people to read."""

    sha256: str
    legacy_hash: str
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def parent_of(
    path: Path, metadata: Mapping[str, str], cache: HashCache | None = None, progress: Progress | None = None
) -> Parent:
    """The `Parent` entry of a model file or diffusers folder; hashing asks `cache` first."""
    digest = model_digest(path, cache, progress)
    return Parent(digest, legacy_hash(path) if path.is_file() else "", path.name, metadata)


def provenance(
    kind: str, settings: Mapping[str, Any], parents: Mapping[str, Parent], versions: Mapping[str, str],
    data: str | None = None, recipe: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The metadata of a file made by `kind` of work from `parents` (role -> parent: "a", "vae", "checkpoint").

    `settings` must be free of paths, dates and run names; `data` is the hash of the training data;
    `recipe` is a merge's recipe in the WebUI's words.
    """  # fmt: skip
    ours = {
        "kind": kind, "format": FORMAT, "settings": dict(settings), "data": data, "versions": dict(versions),
        "parents": {role: parent.sha256 for role, parent in parents.items()},
    }  # fmt: skip
    entries = {"format": "pt", OURS: _dump(ours)}
    if recipe is not None:
        entries[RECIPE] = _dump({"type": OURS, **recipe})
    if parents:
        entries[MODELS] = _dump(_ancestors(parents.values()))
    return entries


def carried(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a converted file keeps of its source's metadata: titles, authors, licences, not hashes or recipes."""
    return {name: text for name, text in metadata.items() if name not in _OF_ONE_FILE}


def readable(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata with JSON texts parsed, as the WebUI reads it."""
    return {name: _parse(text) for name, text in metadata.items()}


def recipe_of(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """How the file was made: the merge recipe, or this project's own entry, or None."""
    for name in (RECIPE, OURS):
        found = _parse(metadata.get(name, ""))
        if isinstance(found, dict):
            return found
    return None


def lineage(metadata: Mapping[str, str]) -> dict[str, Any]:
    """SHA-256 -> name, legacy hash and recipe of every known ancestor."""
    models = _parse(metadata.get(MODELS, ""))
    return models if isinstance(models, dict) else {}


def _ancestors(parents: Any) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for parent in parents:
        known |= lineage(parent.metadata)
    for parent in parents:
        known[parent.sha256] = _entry(parent)
    return known


def _entry(parent: Parent) -> dict[str, Any]:
    entry = {"name": parent.name, "legacy_hash": parent.legacy_hash, RECIPE: None}
    for name in (RECIPE, OURS):
        found = _parse(parent.metadata.get(name, ""))
        if isinstance(found, dict):
            entry[name] = found
    return entry


def _parse(text: Any) -> Any:
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
