"""The form that a merged file's own recipe stands for."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_sdtrain.api.merging_files import MergeFiles
from lib_sdtrain.merge.blocks import SD
from lib_sdtrain.merge.recipes_read import Recipe, read_recipe
from lib_sdtrain.model.hashes import legacy_hash, user_cache

_PLAIN = ("method", "arithmetic", "blocks", "ema", "dtype", "adjust", "discard", "elements", "gamma", "density",
          "drop_rate", "seed")  # fmt: skip


def form_of_recipe(path: Path, files: MergeFiles) -> tuple[dict[str, Any], list[str]]:
    """The form, and notes on models that were not found. Raises `UserError` when the file has no merge recipe.

    Models are recognised by what is known without reading them whole: a remembered SHA-256, or the WebUI's old hash.
    """
    recipe = read_recipe(str(path))
    form = {name: recipe.settings[name] for name in _PLAIN if name in recipe.settings}
    for name in ("alpha", "beta"):
        text = _weights(recipe, name)
        if text:
            form[f"weights_{name}"] = text
    notes, more, loras = list(recipe.notes), [], []
    for role, digest in recipe.parents.items():
        found = _find(digest, recipe, files)
        if found is None:
            notes.append(f"{role}: {_called(digest, recipe)} was not found among the checkpoints")
        elif role.startswith("m"):
            more.append(found)
        elif role.startswith("lora"):
            loras.append((int(role.removeprefix("lora")), found))
        else:
            form[role] = found
    form["model"] = more
    form["lora"] = "\n".join(_lora(recipe, number, found) for number, found in sorted(loras))
    return form, notes


def _weights(recipe: Recipe, name: str) -> str:
    several = recipe.settings.get(f"weights_{name}")
    if several is not None:
        return ",".join(f"{value:g}" for value in several) if isinstance(several, list) else str(several)
    one = recipe.settings.get(name)
    return "" if one in (None, "") else ",".join([f"{float(one):g}"] * len(SD.names))


def _lora(recipe: Recipe, number: int, path: str) -> str:
    entry = recipe.settings["lora"][number - 1]
    if "weights" in entry:
        return f"{path}:1:{','.join(map(repr, entry['weights']))}"
    return f"{path}:{entry['weight']!r}"


def _called(digest: str, recipe: Recipe) -> str:
    name = next((name for known, (name, _) in recipe.known.items() if known.startswith(digest)), "")
    return f"{name or 'a model'} [{digest[:10]}]"


def _find(digest: str, recipe: Recipe, files: MergeFiles) -> str | None:
    legacy = next((old for known, (_, old) in recipe.known.items() if known.startswith(digest)), "")
    cache = user_cache()
    entries = [entry for entry in files.host.checkpoints() if entry.path.is_file()]
    for entry in entries:
        if (cache.get(entry.path) or "none").startswith(digest):
            return entry.title
    same = [entry.title for entry in entries if legacy and legacy_hash(entry.path) == legacy]
    return same[0] if same else None
