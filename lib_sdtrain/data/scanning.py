"""Reading the pictures of a folder: decoded once by threads to be sure they can be, later only what changed."""
from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

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
    workers = min(8, os.cpu_count() or 1)
    ahead: deque[tuple[Found, Future[Known] | Known]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="scan") as pool:
        try:
            for found in pictures:
                before = known.get(found.name)
                same = before is not None and before[0] == found
                ahead.append((found, before[1] if same else pool.submit(read_facts, found.path)))
                if len(ahead) > 2 * workers:
                    yield _settled(*ahead.popleft(), index)
            while ahead:
                yield _settled(*ahead.popleft(), index)
        finally:
            for _, facts in ahead:
                if isinstance(facts, Future):
                    facts.cancel()


def _settled(found: Found, facts: Future[Known] | Known, index: PictureIndex | None) -> tuple[Found, Known]:
    if isinstance(facts, Known):
        return found, facts
    known = facts.result()
    if index is not None:
        index.learn(found, known)
    return found, known


def read_facts(path: Path) -> Known:
    """What a picture file tells; a file that cannot be used has a `problem`."""
    try:
        content = read_bytes(path)
        image = decode(content)
    except BadPicture as error:
        return Known(problem=str(error))
    return Known(hashlib.sha256(content).hexdigest(), image.size, look_of(image))


def read_picture(path: Path, captions: Captions) -> Picture:
    """One picture. Raises `BadPicture`, or `UserError` for its caption."""
    known = read_facts(path)
    if known.problem:
        raise BadPicture(known.problem)
    caption, columns = captions.of(path)
    return Picture(path, known.sha256, known.size, caption, columns, known.look, captions.mask_of(path))
