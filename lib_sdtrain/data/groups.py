"""Pictures weighted by folder and by file: kohya's `10_name`, EveryDream's multiply.txt, trees of groups.

Sources: kohya-ss/sd-scripts (DreamBooth folders), EveryDream1 and 2 (multiply.txt and its neighbours),
anime_screenshot_pipeline (hierarchical weights).
"""
from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from lib_sdtrain.data.catalogue import chosen, names_of, uncaptioned, with_words
from lib_sdtrain.data.concepts import Group, Material, Picture
from lib_sdtrain.data.everydream_files import SideFiles, read_side_files
from lib_sdtrain.data.filters import number_or_text
from lib_sdtrain.data.group_tree import leaf_shares, read_patterns, weights_from_tree
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.run import Concept
from lib_sdtrain.textfiles import parse_json

_REPEATS = re.compile(r"(\d+)_(.*)", re.DOTALL)
MOST_PROBLEMS = 10
NONE, KOHYA, EVERYDREAM, EVERYDREAM1, TREE = "none", "kohya", "everydream", "everydream1", "tree"


@dataclass(frozen=True)
class Folder:
    """Pictures of one folder: its path below the concept's, and their numbers."""

    path: PurePosixPath
    members: Sequence[int]


def folders_of(root: Path, pictures: Sequence[Picture]) -> list[Folder]:
    """The folders that hold pictures themselves, in order."""
    found: dict[str, array[int]] = {}
    for number, name in enumerate(names_of(pictures, root)):
        folder = name.rpartition("/")[0]
        if folder not in found:
            found[folder] = array("I")
        found[folder].append(number)
    return sorted((Folder(PurePosixPath(path), members) for path, members in found.items()), key=lambda one: one.path)


def weighted(material: Material, root: Path, where: str) -> Material:
    """The material with the groups that its concept's `weighting` asks for; words of folders are `with_folder_words`'.

    Raises `UserError` for side files, trees and lists of weights that cannot be read; `where` is the concept's path.
    """
    concept = material.concept
    check_weighting(concept, where)
    if concept.weighting == NONE:
        grouped = material
    elif concept.weighting == KOHYA:
        grouped = _kohya(material, root)
    elif concept.weighting == TREE:
        grouped = _tree(material, root, where)
    else:
        grouped = _everydream(material, root, truncated=concept.weighting == EVERYDREAM1)
    if concept.picture_weights:
        named = read_picture_weights(concept.picture_weights, f"{where}.picture_weights")
        return _by_picture(grouped, _named_weights(grouped.pictures, root, named))
    if concept.weight_column:
        return _by_picture(grouped, _column_weights(grouped.pictures, concept.weight_column))
    return grouped


def check_weighting(concept: Concept, where: str) -> None:
    """Raise `UserError` for settings that contradict each other."""
    problems = Problems()
    given = [name for name in ("group_weights", "group_weights_file") if getattr(concept, name)]
    if concept.weighting == TREE and len(given) != 1:
        problems.add(
            "a tree needs either group_weights or group_weights_file", where=f"{where}.weighting",
            fix="give one of them",
        )
    if concept.picture_weights and concept.weight_column:
        problems.add("a file and a column of weights are given", where=f"{where}.weight_column", fix="give one of them")
    for name in given if concept.weighting != TREE else ():
        problems.add("weights of groups are for weighting: tree", where=f"{where}.{name}", fix="set weighting: tree")
    problems.raise_if_any()


def _kohya(material: Material, root: Path) -> Material:
    folders = folders_of(root, material.pictures)
    return _with_groups(material, [_multiplied(folder, float(repeats_of(root, folder.path)[0])) for folder in folders])


def with_folder_words(pictures: Sequence[Picture], concept: Concept, root: Path) -> Sequence[Picture]:
    """The pictures; with kohya's weighting those without a caption are called by the words in their folder's name."""
    said: dict[str, array[int]] = {}
    for folder in folders_of(root, pictures) if concept.weighting == KOHYA else ():
        _, words = repeats_of(root, folder.path)
        if words:
            said.setdefault(words, array("I")).extend(folder.members)
    return with_words(pictures, said) if said else pictures


def wordless_folders(pictures: Sequence[Picture], root: Path) -> list[str]:
    """The folders with pictures of which nothing is said, as seen from `root`, which goes by its own name."""
    return [folder.path.as_posix() if folder.path.parts else root.name for folder in folders_of(root, pictures)
            if uncaptioned(chosen(pictures, np.asarray(folder.members)))]


def repeats_of(root: Path, folder: PurePosixPath) -> tuple[int, str]:
    """(repeats, words) of the nearest folder named `N_words`, from `folder` up to `root`; (1, "") without one."""
    for name in (*reversed(folder.parts), root.name):
        match = _REPEATS.fullmatch(name)
        if match:
            return int(match[1]), match[2].strip()
    return 1, ""


def _multiplied(folder: Folder, multiply: float, sides: SideFiles | None = None) -> Group:
    group = Group(folder.path.as_posix(), multiply * len(folder.members), folder.members)
    if sides is None:
        return group
    return replace(
        group, flip_p=sides.flip_p, caption_dropout=sides.cond_dropout, shuffle=sides.shuffle_tags,
        loss_scale=sides.loss_scale, batch_id=sides.batch_id,
    )


def _everydream(material: Material, root: Path, truncated: bool) -> Material:
    groups = []
    for folder in folders_of(root, material.pictures):
        sides = read_side_files(root, folder.path)
        multiply = float(int(sides.multiply)) if truncated else sides.multiply
        groups.append(_multiplied(folder, multiply, sides))
    return _with_groups(material, groups)


def _with_groups(material: Material, groups: Sequence[Group]) -> Material:
    """Groups whose weight is the number of samples they have in an epoch, those of weight 0 left out."""
    kept = tuple(group for group in groups if group.weight > 0)
    return replace(material, groups=kept, epoch=max(1, math.floor(sum(group.weight for group in kept) + 1e-9)))


def _tree(material: Material, root: Path, where: str) -> Material:
    """Groups by shares; an epoch is as long as it takes to see every picture once on average."""
    concept, folders = material.concept, folders_of(root, material.pictures)
    if concept.group_weights:
        known = {parent for folder in folders for parent in (folder.path, *folder.path.parents)}
        weight = weights_from_tree(concept.group_weights, known, f"{where}.group_weights")
    else:
        weight = read_patterns(Path(concept.group_weights_file).expanduser(), root, f"{where}.group_weights_file")
    shares = leaf_shares([folder.path for folder in folders], weight)
    groups = tuple(Group(folder.path.as_posix(), shares[folder.path], folder.members)
                   for folder in folders if shares[folder.path] > 0)
    rarest = min((group.weight / len(group.members) for group in groups), default=1.0)
    return replace(material, groups=groups, epoch=math.floor(sum(g.weight for g in groups) / rarest + 1e-9))


def read_picture_weights(file: str, where: str) -> dict[str, float]:
    """{picture's path below the folder: weight} from a JSON file. Raises `UserError`."""
    path = Path(file).expanduser()
    try:
        raw = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}", where=where) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}", where=where) from error
    if not isinstance(raw, Mapping):
        raise UserError(f"{path} holds no names with weights", where=where, fix='write {"folder/picture.png": 2.0}')
    problems = Problems()
    for name, weight in raw.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            problems.add(f"{weight!r} is not a weight of at least 0", where=f"{path}: {name}")
    problems.raise_if_any()
    return {str(name): float(weight) for name, weight in raw.items()}


def _named_weights(pictures: Sequence[Picture], root: Path, weights: Mapping[str, float]) -> array[float]:
    """The weight of each picture by its path or its name; pictures that are not named weigh 1."""
    return array("d", (weights.get(name, weights.get(name.rpartition("/")[2], 1.0))
                       for name in names_of(pictures, root)))


def _column_weights(pictures: Sequence[Picture], column: str) -> array[float]:
    """The weight of each picture in a column of the metadata; 1 without a value. Raises `UserError`."""
    found, problems = array("d"), Problems()
    for picture in pictures:
        value = number_or_text(picture.column(column))
        weight = 1.0 if value in (None, "") else value
        good = isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 <= weight < math.inf
        found.append(weight if good else 0.0)
        if not good and len(problems.found) < MOST_PROBLEMS:
            problems.add(f"its {column} {value!r} is not a weight of at least 0", where=str(picture.path),
                         fix=f"correct the column {column} of the metadata")
    problems.raise_if_any()
    return found


def _by_picture(material: Material, own: Sequence[float]) -> Material:
    """The weights `own` of single pictures within their groups."""
    groups = material.groups or (Group("", float(len(own)), range(len(own))),)
    done = []
    for group in groups:
        inner = array("d", (own[number] for number in group.members))
        scale = 1.0 if material.concept.weighting == TREE else sum(inner) / len(inner)
        members = array("I", (number for number, weight in zip(group.members, inner, strict=True) if weight > 0))
        positive = array("d", (weight for weight in inner if weight > 0))
        if members:
            done.append(replace(group, weight=group.weight * scale, members=members, multipliers=positive))
    if material.concept.weighting == TREE:
        return replace(material, groups=tuple(done))
    return _with_groups(material, done)


def hint(root: Path, concept: Concept) -> str:
    """What the folder's layout suggests when no weighting is set; empty when nothing does."""
    if concept.weighting != NONE:
        return ""
    with os.scandir(root) as entries:
        names = [root.name, *(entry.name for entry in entries if entry.is_dir())]
    if any(_REPEATS.fullmatch(name) for name in names):
        return "folders named like kohya's 10_name: their repeats count with weighting: kohya"
    if any("multiply.txt" in files for _, _, files in os.walk(root)):
        return "there is a multiply.txt: it counts with weighting: everydream"
    return ""
