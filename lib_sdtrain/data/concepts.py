"""From folders to pictures with captions: what a concept consists of, and what had to be left out."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lib_sdtrain.data.listing import CAPTION_SUFFIXES, MASK_LABEL, Listed, list_pictures
from lib_sdtrain.data.metadata import MetadataFile, caption_of
from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_dir, is_file
from lib_sdtrain.settings.run import Concept

MAX_CAPTION_BYTES = 64 * 1024
SHORTER = f"at most {MAX_CAPTION_BYTES // 1024} KB"
FILEWORDS = "[filewords]"
_MARKS = re.compile(r"\[(?:(name|folder)|column:([^\]]+))\]")

_NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Picture:
    """A readable picture: its file, the SHA-256 of its bytes, its upright size, its caption (or None).

    `columns` are what a metadata file says of it, `mask` a file that tells how much its parts count,
    `look` what it looks like (`look_of`).
    """

    path: Path
    sha256: str
    size: tuple[int, int]
    caption: str | None
    columns: Mapping[str, Any] = field(default_factory=lambda: _NO_COLUMNS, compare=False)
    look: int = field(default=0, compare=False)
    mask: Path | None = field(default=None, compare=False)

    def column(self, name: str) -> Any:
        """A value by name: of the metadata, or width, height, name, folder, caption. None where there is none."""
        own = {"width": self.size[0], "height": self.size[1], "name": self.path.stem, "folder": self.path.parent.name,
               "caption": self.caption}  # fmt: skip
        return self.columns[name] if name in self.columns else own.get(name)


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
    """Every picture file below `folder`, hidden ones and masks (NAME-masklabel.png) left out.

    Their order does not depend on the system.
    """
    start = len(os.fsencode(folder.absolute())) + 1
    found = sorted(one.path for one in list_pictures(folder) if isinstance(one, Listed))
    return [folder / os.fsdecode(path[start:]) for path in found]


def check_folder(folder: str, where: str) -> Path:
    """The folder as a path. Raises `UserError` saying what is there instead."""
    if not folder:
        raise UserError("no folder is given", where=where, fix="name the folder that holds the pictures")
    path = Path(folder).expanduser()
    if is_file(path):
        raise UserError(f"{path} is a file, not a folder", where=where, fix=f"give the folder: {path.parent}")
    if not is_dir(path):
        raise UserError(f"there is no folder {path}", where=where, fix=_nearest_folder(path))
    return path


def _nearest_folder(path: Path) -> str:
    parent = next((p for p in path.parents if is_dir(p)), None)
    return f"the nearest folder that exists is {parent.resolve()}" if parent else "check the path"


def read_caption(picture: Path) -> str | None:
    """The caption beside a picture as one line; None without one. Raises `UserError` as `read_beside`."""
    files = (picture.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    file = next((file for file in files if file.is_file()), None)
    return None if file is None else read_beside(file)


def read_beside(file: Path, keep_lines: bool = False) -> str:
    """The text of a caption file, white space and control characters reduced to single spaces.

    `keep_lines` leaves its lines apart. Raises `UserError` when it is not UTF-8 text of a sensible size.
    """
    try:
        if file.stat().st_size > MAX_CAPTION_BYTES:
            raise UserError("the caption is far too long", where=str(file), fix=SHORTER)
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("the caption is not UTF-8 text", where=str(file), fix="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"the caption cannot be read: {error.strerror or error}", where=str(file)) from error
    return "\n".join(filter(None, map(tidy, text.splitlines()))) if keep_lines else tidy(text)


def tidy(text: str) -> str:
    """White space and control characters reduced to single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@dataclass(frozen=True)
class Captions:
    """Where the captions of a folder's pictures come from: beside them, a metadata file, the file names."""

    root: Path
    metadata: MetadataFile | None = None
    column: str = ""
    from_names: bool = False
    keep_lines: bool = False
    mask_dir: Path | None = None

    def __post_init__(self) -> None:
        """Raises `UserError` for a caption of the metadata that is far too long."""
        for name, row in self.metadata.longer_than(MAX_CAPTION_BYTES) if self.metadata else ():
            words = caption_of(row, self.column)
            if words and len(words) > MAX_CAPTION_BYTES:
                raise UserError("the caption is far too long", where=f"{self.metadata.path}: {name}", fix=SHORTER)

    def of(self, picture: Path, said: str | None = None) -> tuple[str | None, Mapping[str, Any]]:
        """(caption, columns) of a picture beside which stands what was `said`, in lines; None for nothing."""
        row = self.metadata.row(picture, self.root) if self.metadata else _NO_COLUMNS
        caption = said if said is None or self.keep_lines else tidy(said)
        if caption is None and row:
            words = caption_of(row, self.column)
            caption = tidy(words) if words else None
        if caption is None and self.from_names:
            caption = tidy(picture.stem.partition("_")[0])
        return caption, row

    def mask_of(self, picture: Path, beside: bool) -> Path | None:
        """The mask file of a picture: of the same name in `mask_dir`, or NAME-masklabel.png if that is `beside` it."""
        own = picture.with_name(f"{picture.stem}{MASK_LABEL}.png") if beside else None
        if self.mask_dir is None:
            return own
        below = self.mask_dir / picture.relative_to(self.root)
        candidates = (below.with_suffix(suffix) for suffix in (".png", picture.suffix))
        return next((path for path in candidates if path.is_file()), own)

    @property
    def only_beside(self) -> bool:
        """Whether nothing but the file beside it can be a picture's caption."""
        return self.metadata is None and not self.from_names


def prompt_of(caption: str | None, prompt: str, picture: Picture | None = None) -> str:
    """The words of a picture: marks in the prompt are filled in, else the caption wins over the prompt.

    `[filewords]` is the caption, `[name]` the file name without suffix, `[folder]` the folder's name, `[column:x]` a
    column of the metadata.
    """
    if picture is not None:
        prompt = _MARKS.sub(lambda match: _filled(picture, match), prompt)
    if FILEWORDS in prompt:
        return " ".join(prompt.replace(FILEWORDS, caption or "").split())
    return prompt if caption is None else caption


def _filled(picture: Picture, match: re.Match[str]) -> str:
    value = picture.column(match[1] or match[2].strip())
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return "" if value is None else str(value)
