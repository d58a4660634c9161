"""Making a merge again: its settings from the recipe, its models found by their hashes."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Phase
from lib_sdtrain.merge.inputs import split_lora
from lib_sdtrain.merge.parents import ParentHashes
from lib_sdtrain.merge.recipes_read import Recipe, read_recipe
from lib_sdtrain.model.checkpoint import EMBEDDED, find_checkpoint
from lib_sdtrain.model.hashes import legacy_hash
from lib_sdtrain.model.overwriting import check_result
from lib_sdtrain.places import exists, is_dir
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.parse import build

_SUFFIXES = {".safetensors", ".ckpt", ".pt"}
_OWN = {"recipe", "out", "search", "threads", "a", "b", "c", "model", "vae", "lora"}
_INDEX = "model_index.json"
_POLL = 0.2


@dataclass(frozen=True)
class Again:
    """The settings of a recipe with its files filled in. `names`: SHA-256 -> the name that the recipe knew."""

    settings: MergeSettings
    names: Mapping[str, str]
    notes: tuple[str, ...]


def settings_again(
    settings: MergeSettings, token: CancelToken, hashes: ParentHashes, folders: Sequence[Path]
) -> Iterator[Any]:
    """Progress events, then (as the generator's value) the `Again` of `settings.recipe`.

    Models are looked for among those given outright, in `settings.search`, then in `folders`. Raises
    `UserError` naming every model that is not found, every one given that the recipe does not use, and for settings
    that would change the recipe.
    """
    others = [name for name in to_plain(settings, only_changed=True) if name not in _OWN]
    if others:
        raise UserError("a recipe decides this", where=", ".join(others), fix="leave it out, or merge without --recipe")
    recipe = read_recipe(str(settings.recipe))
    _check_out(settings)
    given = _given(settings)
    found = yield from _find_all(recipe, _candidates(given, settings, folders), token, hashes)
    yield from _check_used(recipe, given, found, token, hashes)
    values = {**recipe.settings, **_files(recipe, found), "out": settings.out, "threads": settings.threads}
    for name in ("weights_alpha", "weights_beta"):
        if isinstance(values.get(name), list):
            values[name] = ",".join(map(repr, values[name]))
    if settings.vae and "vae" not in recipe.parents:
        values["vae"] = settings.vae
    names = {digest: name for digest, (name, _) in recipe.known.items() if name}
    return Again(build(MergeSettings, values, "recipe"), names, recipe.notes)


def _check_out(settings: MergeSettings) -> None:
    """The result, and the description beside it, may not take the recipe's place."""
    if settings.out:
        problems = Problems()
        check_result(Path(settings.out).expanduser(), [Path(str(settings.recipe)).expanduser()], problems)
        problems.raise_if_any()


def _files(recipe: Recipe, found: Mapping[str, Path]) -> dict[str, Any]:
    files: dict[str, Any] = {role: str(path) for role, path in found.items() if role in ("a", "b", "c", "vae")}
    more = sorted((role for role in found if role.startswith("m")), key=lambda role: int(role[1:]))
    files["model"] = [str(found[role]) for role in more]
    files["lora"] = []
    for number, lora in enumerate(recipe.settings.get("lora", []), start=1):
        path = found[f"lora{number}"]
        if "weights" in lora:
            files["lora"].append(f"{path}:1:{','.join(map(repr, lora['weights']))}")
        else:
            files["lora"].append(f"{path}:{lora['weight']!r}")
    return files


def _find_all(
    recipe: Recipe, candidates: Sequence[Path], token: CancelToken, hashes: ParentHashes
) -> Iterator[Any]:
    problems, found = Problems(), {}
    for role, digest in recipe.parents.items():
        path = yield from _find(digest, recipe, candidates, token, hashes)
        if path is None:
            name = next((name for known, (name, _) in recipe.known.items() if known.startswith(digest)), "")
            called = f" (called {name})" if name else ""
            problems.add(f"no file with the hash {digest[:10]}{called} was found", where=role,
                         fix="name its folder with --search")
        else:
            found[role] = path
    problems.raise_if_any()
    return found


def _given(settings: MergeSettings) -> dict[Path, str]:
    """The models, VAE and LoRAs that are named outright, each with its role. Raises `UserError` for those not there."""
    named = {"a": (settings.a,), "b": (settings.b,), "c": (settings.c,), "model": settings.model}
    given = {find_checkpoint(name): role for role, names in named.items() for name in names if name}
    if settings.vae:
        given[Path(settings.vae).expanduser()] = "vae"
    given |= {split_lora(text)[0]: "lora" for text in settings.lora}
    problems = Problems()
    for path, role in given.items():
        if not exists(path):
            problems.add(f"no such file: {path}", where=role, fix="check the path")
    problems.raise_if_any()
    return given


def _candidates(given: Iterable[Path], settings: MergeSettings, folders: Sequence[Path]) -> list[Path]:
    """Files and diffusers folders that may be parents: those given, those of the folders, the toybox."""
    files = list(given)
    for folder in (*(Path(name).expanduser() for name in settings.search), *folders):
        if not is_dir(folder):
            raise UserError("no such folder", where=f"search {folder}")
        found = sorted(folder.rglob("*"))
        files += [path.parent for path in found if path.name == _INDEX]
        files += [path for path in found if path.suffix in _SUFFIXES and path.is_file()]
    return list(dict.fromkeys([*files, *EMBEDDED.values()]))


def _check_used(
    recipe: Recipe, given: Mapping[Path, str], found: Mapping[str, Path], token: CancelToken, hashes: ParentHashes
) -> Iterator[Any]:
    """Raise `UserError` naming each file that was given and that the recipe does not use."""
    problems = Problems()
    for path, role in given.items():
        wanted = role == "vae" and "vae" not in recipe.parents  # some recipes know their VAE by name alone
        if wanted or path in found.values():
            continue
        digest = yield from _digest(path, token, hashes, Phase(name="looking for the models", unit="files"))
        if not any(digest.startswith(parent) for parent in recipe.parents.values()):
            problems.add(f"{path.name} is none of the recipe's files", where=role, fix="leave it out")
    problems.raise_if_any()


def _find(
    digest: str, recipe: Recipe, candidates: Sequence[Path], token: CancelToken, hashes: ParentHashes
) -> Iterator[Any]:
    """The candidate with this SHA-256 (or beginning of one). Likely ones are hashed first, others only if need be.

    A recipe knows no legacy hash of a folder.
    """
    known = next((entry for known, entry in recipe.known.items() if known.startswith(digest)), None)
    name, legacy = known or ("", "")
    likely = [path for path in candidates if not legacy or (path.is_file() and legacy_hash(path) == legacy)]
    for number, path in enumerate(sorted(likely, key=lambda path: path.name != name), start=1):
        phase = Phase(name="looking for the models", done=number, total=len(likely), unit="files")
        if (yield from _digest(path, token, hashes, phase)).startswith(digest):
            return path
    return None


def _digest(path: Path, token: CancelToken, hashes: ParentHashes, phase: Phase) -> Iterator[Any]:
    """A file's SHA-256; `phase` is told while it is awaited."""
    while True:
        token.check()
        try:
            return hashes.get(path, _POLL)
        except TimeoutError:
            yield phase
