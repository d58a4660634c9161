"""From folders to pictures with captions: what a concept consists of, and what had to be left out."""
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.data.pictures import SUFFIXES, BadPicture, decode, read_bytes
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Notice, Phase
from lib_sdtrain.settings.run import Concept

CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION_BYTES = 64 * 1024


@dataclass(frozen=True)
class Picture:
    """A readable picture: its file, the SHA-256 of its bytes, its upright size, the caption beside it (or None)."""

    path: Path
    sha256: str
    size: tuple[int, int]
    caption: str | None


@dataclass(frozen=True)
class Group:
    """Pictures of a concept that share a weight: a folder. `members` are their numbers among the concept's pictures.

    `weight` is the share of samples among the concept's groups, whatever the number of members; `multipliers` are those
    of the members among each other. The rest overrides what the settings say: chance to mirror, chance to drop the
    caption, whether tags are shuffled; `loss_scale` weighs the loss, groups of one `batch_id` share batches.
    """

    name: str = ""
    weight: float = 1.0
    members: Sequence[int] = ()
    multipliers: Sequence[float] | None = None
    flip_p: float | None = None
    caption_dropout: float | None = None
    shuffle: bool | None = None
    loss_scale: float = 1.0
    batch_id: str = ""

    def flip_chance(self, otherwise: float) -> float:
        """Its own chance to mirror, or the settings'."""
        return otherwise if self.flip_p is None else self.flip_p


@dataclass(frozen=True)
class Material:
    """What a concept is trained on; `class_pictures` is empty without prior preservation.

    Without `groups`, all pictures weigh the same. `epoch` is the number of samples of an epoch where that is not the
    number of pictures.
    """

    concept: Concept
    pictures: Sequence[Picture]
    class_pictures: Sequence[Picture] = ()
    groups: tuple[Group, ...] = ()
    epoch: int | None = None

    @property
    def epoch_samples(self) -> int:
        """Samples of an epoch: every picture once, or as often as it is repeated."""
        return len(self.pictures) if self.epoch is None else self.epoch


def find_pictures(folder: Path) -> list[Path]:
    """Every picture file below `folder`, hidden ones left out, in an order that does not depend on the system."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not _hidden(path.relative_to(folder))
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def check_folder(folder: str, where: str) -> Path:
    """The folder as a path. Raises `UserError` saying what is there instead."""
    if not folder:
        raise UserError("no folder is given", where=where, fix="name the folder that holds the pictures")
    path = Path(folder).expanduser()
    if path.is_file():
        raise UserError(f"{path} is a file, not a folder", where=where, fix=f"give the folder: {path.parent}")
    if not path.is_dir():
        raise UserError(f"there is no folder {path}", where=where, fix=_nearest_folder(path))
    return path


def _nearest_folder(path: Path) -> str:
    parent = next((p for p in path.parents if p.is_dir()), None)
    return f"the nearest folder that exists is {parent.resolve()}" if parent else "check the path"


def read_caption(picture: Path) -> str | None:
    """The caption beside a picture, white space and control characters reduced to single spaces; None without one.

    Raises `UserError` when the file is not UTF-8 text of a sensible size.
    """
    for suffix in CAPTION_SUFFIXES:
        path = picture.with_suffix(suffix)
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_CAPTION_BYTES:
            fix = f"at most {MAX_CAPTION_BYTES // 1024} KB"
            raise UserError("the caption is far too long", where=str(path), fix=fix)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError("the caption is not UTF-8 text", where=str(path), fix="save it as UTF-8") from error
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return None


def read_picture(path: Path) -> Picture:
    """Decode once to be sure it can be. Raises `BadPicture`, or `UserError` for its caption."""
    content = read_bytes(path)
    size = decode(content).size
    return Picture(path, hashlib.sha256(content).hexdigest(), size, read_caption(path))


def scan(folder: Path, token: CancelToken, limit: int | None = None) -> Iterator[Phase | Notice | Picture]:
    """Read the pictures below `folder` (the first `limit` readable ones): progress, a notice for each one left out."""
    paths = find_pictures(folder)
    kept = 0
    for done, path in enumerate(paths, 1):
        token.check()
        if limit is not None and kept >= limit:
            return
        try:
            yield read_picture(path)
            kept += 1
        except BadPicture as error:
            yield Notice(text=f"left out: {error}", where=str(path))
        yield Phase(name=f"reading pictures of {folder.name}", done=done, total=len(paths), unit="pictures")


def prompt_of(caption: str | None, prompt: str) -> str:
    """The words of a picture: `[filewords]` in the prompt is the caption, else the caption wins over the prompt."""
    if "[filewords]" in prompt:
        return " ".join(prompt.replace("[filewords]", caption or "").split())
    return prompt if caption is None else caption
