"""Making a merge again: its settings from the recipe, its models found by their hashes."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Phase
from lib_sdtrain.merge.parents import ParentHashes
from lib_sdtrain.merge.recipes_read import Recipe, read_recipe
from lib_sdtrain.model.hashes import legacy_hash
from lib_sdtrain.model.overwriting import check_result
from lib_sdtrain.places import is_dir
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.parse import build

_SUFFIXES = {".safetensors", ".ckpt", ".pt"}
_OWN = {"recipe", "out", "search", "threads", "a", "b", "c", "model", "vae", "lora"}
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
    `UserError` naming every model that is not found, and for settings that would change the recipe.
    """
    others = [name for name in to_plain(settings, only_changed=True) if name not in _OWN]
    if others:
        raise UserError("a recipe decides this", where=", ".join(others), fix="leave it out, or merge without --recipe")
    recipe = read_recipe(str(settings.recipe))
    _check_out(settings)
    found = yield from _find_all(recipe, settings, token, hashes, folders)
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
    recipe: Recipe, settings: MergeSettings, token: CancelToken, hashes: ParentHashes, folders: Sequence[Path]
) -> Iterator[Any]:
    candidates = _candidates(settings, folders)
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


def _candidates(settings: MergeSettings, folders: Sequence[Path]) -> list[Path]:
    given = [settings.a, settings.b, settings.c, *settings.model, settings.vae]
    files = [Path(name).expanduser() for name in given if name]
    for folder in (*(Path(name).expanduser() for name in settings.search), *folders):
        if not is_dir(folder):
            raise UserError("no such folder", where=f"search {folder}")
        files += sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    return [path for path in dict.fromkeys(files) if path.is_file()]


def _find(
    digest: str, recipe: Recipe, candidates: Sequence[Path], token: CancelToken, hashes: ParentHashes
) -> Iterator[Any]:
    """The candidate with this SHA-256 (or beginning of one). Likely ones are hashed first, others only if need be."""
    name, legacy = next((entry for known, entry in recipe.known.items() if known.startswith(digest)), ("", ""))
    likely = [path for path in candidates if not legacy or legacy_hash(path) == legacy]
    for number, path in enumerate(sorted(likely, key=lambda path: path.name != name), start=1):
        while True:
            token.check()
            try:
                fits = hashes.get(path, _POLL).startswith(digest)
                break
            except TimeoutError:
                yield Phase(name="looking for the models", done=number, total=len(likely), unit="files")
        if fits:
            return path
    return None

