"""Reading the pictures of a folder: decoded once by threads to be sure they can be, later only what changed."""
from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path

from lib_sdtrain.data.ahead import ahead
from lib_sdtrain.data.concepts import Captions, Picture, pictures_among
from lib_sdtrain.data.index import Found, Known, PictureIndex, list_files
from lib_sdtrain.data.pictures import BadPicture, decode, look_of, read_bytes
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Notice, Phase

MANY, EVERY = 2000, 64


def scan(
    folder: Path, token: CancelToken, limit: int | None = None, captions: Captions | None = None,
    index: PictureIndex | None = None,
) -> Iterator[Phase | Notice | Picture]:
    """Read the pictures below `folder` (the first `limit` readable ones): progress, a notice for each one left out.

    What `index` knows is not read again. Raises `UserError` for a caption that cannot be read.
    """
    files = list(list_files(folder))
    pictures = pictures_among(folder, files)
    names, captions = {file.name for file in files}, captions or Captions(folder)
    kept = 0
    for done, (found, known) in enumerate(_facts(pictures, index.below(folder) if index else {}, index), 1):
        token.check()
        if limit is not None and kept >= limit:
            return
        if known.problem:
            yield Notice(text=f"left out: {known.problem}", where=found.name)
        else:
            path = found.path
            caption, columns = captions.of(path, names)
            yield Picture(path, known.sha256, known.size, caption, columns, known.look, captions.mask_of(path, names))
            kept += 1
        if done % EVERY == 0 or len(pictures) < MANY or done == len(pictures):
            yield Phase(name=f"reading pictures of {folder.name}", done=done, total=len(pictures), unit="pictures")


def collect(
    stream: Iterable[Event | Picture], problems: Problems
) -> Generator[Event, None, list[Picture]]:
    """Pass events on, gather pictures; a bad caption is a mistake of the user."""
    found = []
    iterator = iter(stream)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return found
        except UserError as error:
            problems.absorb(error)
            return found
        if isinstance(item, Picture):
            found.append(item)
        else:
            yield item


def _facts(
    pictures: list[Found], known: Mapping[str, tuple[Found, Known]], index: PictureIndex | None
) -> Iterator[tuple[Found, Known]]:
    """What each picture's bytes tell, in order; new files are read a little ahead by threads."""

    def kept(found: Found) -> Known | None:
        before = known.get(found.name)
        return before[1] if before is not None and before[0] == found else None

    read = ahead("scan", pictures, lambda found: read_facts(found.path), kept)
    for found, facts in zip(pictures, read, strict=True):
        if index is not None and kept(found) is None:
            index.learn(found, facts)
        yield found, facts


def read_facts(path: Path) -> Known:
    """What a picture file tells; a file that cannot be used has a `problem`."""
    try:
        content = read_bytes(path)
        image = decode(content)
    except BadPicture as error:
        return Known(problem=str(error))
    return Known(hashlib.sha256(content).hexdigest(), image.size, look_of(image))
