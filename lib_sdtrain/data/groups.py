"""Pictures weighted by folder and by file: kohya's `10_name`, EveryDream's multiply.txt, trees of groups.

Sources: kohya-ss/sd-scripts (DreamBooth folders), EveryDream1 and 2 (multiply.txt and its neighbours),
anime_screenshot_pipeline (hierarchical weights).
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lib_sdtrain.data.concepts import Group, Material, Picture
from lib_sdtrain.data.everydream_files import SideFiles, read_side_files
from lib_sdtrain.data.group_tree import leaf_shares, read_patterns, weights_from_tree
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.run import Concept
from lib_sdtrain.textfiles import parse_json

_REPEATS = re.compile(r"(\d+)_(.*)", re.DOTALL)
NONE, KOHYA, EVERYDREAM, EVERYDREAM1, TREE = "none", "kohya", "everydream", "everydream1", "tree"


@dataclass(frozen=True)
class Folder:
    """Pictures of one folder: its path below the concept's, and their numbers."""

    path: PurePosixPath
    members: tuple[int, ...]


def folders_of(root: Path, pictures: Sequence[Picture]) -> list[Folder]:
    """The folders that hold pictures themselves, in order."""
    found: dict[PurePosixPath, list[int]] = {}
    for number, picture in enumerate(pictures):
        found.setdefault(PurePosixPath(picture.path.parent.relative_to(root).as_posix()), []).append(number)
    return [Folder(path, tuple(members)) for path, members in sorted(found.items())]


def weighted(material: Material, root: Path, where: str) -> Material:
    """The material with the groups that its concept's `weighting` asks for.

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
    if not concept.picture_weights:
        return grouped
    return _by_picture(grouped, root, read_picture_weights(concept.picture_weights, f"{where}.picture_weights"))


def check_weighting(concept: Concept, where: str) -> None:
    """Raise `UserError` for settings that contradict each other."""
    problems = Problems()
    given = [name for name in ("group_weights", "group_weights_file") if getattr(concept, name)]
    if concept.weighting == TREE and len(given) != 1:
        problems.add(
            "a tree needs either group_weights or group_weights_file", where=f"{where}.weighting",
            fix="give one of them",
        )
    for name in given if concept.weighting != TREE else ():
        problems.add("weights of groups are for weighting: tree", where=f"{where}.{name}", fix="set weighting: tree")
    problems.raise_if_any()


def _kohya(material: Material, root: Path) -> Material:
    pictures, groups = list(material.pictures), []
    for folder in folders_of(root, pictures):
        repeats, words = repeats_of(root, folder.path)
        for number in folder.members:
            if pictures[number].caption is None and words:
                pictures[number] = replace(pictures[number], caption=words)
        groups.append(_multiplied(folder, float(repeats)))
    return _with_groups(replace(material, pictures=tuple(pictures)), groups)


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


def _by_picture(material: Material, root: Path, weights: Mapping[str, float]) -> Material:
    """Weights of single pictures within their groups; pictures that are not named weigh 1."""
    names = [picture.path.relative_to(root).as_posix() for picture in material.pictures]
    own = [weights.get(name, weights.get(PurePosixPath(name).name, 1.0)) for name in names]
    groups = material.groups or (Group("", float(len(own)), range(len(own))),)
    done = []
    for group in groups:
        inner = [own[number] for number in group.members]
        scale = 1.0 if material.concept.weighting == TREE else sum(inner) / len(inner)
        members = [number for number, weight in zip(group.members, inner, strict=True) if weight > 0]
        positive = [weight for weight in inner if weight > 0]
        if members:
            done.append(replace(group, weight=group.weight * scale, members=tuple(members), multipliers=positive))
    if material.concept.weighting == TREE:
        return replace(material, groups=tuple(done))
    return _with_groups(material, done)


def hint(root: Path, concept: Concept) -> str:
    """What the folder's layout suggests when no weighting is set; empty when nothing does."""
    if concept.weighting != NONE:
        return ""
    names = [root.name, *(path.name for path in root.iterdir() if path.is_dir())]
    if any(_REPEATS.fullmatch(name) for name in names):
        return "folders named like kohya's 10_name: their repeats count with weighting: kohya"
    if next(root.rglob("multiply.txt"), None):
        return "there is a multiply.txt: it counts with weighting: everydream"
    return ""
