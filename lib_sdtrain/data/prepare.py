"""Pictures brought to their training size as files of their own, and pictures moved by tag."""
from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from lib_sdtrain.data.caption_edit import captions_below
from lib_sdtrain.data.captions import split_tags
from lib_sdtrain.data.concepts import CAPTION_SUFFIXES, find_pictures
from lib_sdtrain.data.journal import Journal
from lib_sdtrain.data.pictures import BadPicture, apply_fit, open_picture
from lib_sdtrain.data.sizes import Misfit, Sizing
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Notice, Phase
from lib_sdtrain.places import is_dir, is_file

Result = Iterator[Event]


def check_folders(source: Path, out: Path) -> None:
    """Raise `UserError` unless `source` is a folder and `out` another one outside of it."""
    if not is_dir(source):
        raise UserError(f"there is no folder {source}", where="FOLDER")
    if is_file(out) or out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise UserError("the result needs a folder of its own", where="--out", fix="name one outside of the pictures'")


def resize(source: Path, out: Path, sizing: Sizing, pad_color: str, token: CancelToken) -> Result:
    """Write every picture below `source` to `out` as PNG, resized and cut (or padded) as training would, with captions.

    A notice for each that is left out. `Finished` says how many. Raises `UserError` when a file is there already.
    """
    check_folders(source, out)
    paths, journal, written = find_pictures(source), Journal(out), 0
    targets = [(out / path.relative_to(source)).with_suffix(".png") for path in paths]
    _check_free(targets)
    try:
        for number, (path, target) in enumerate(zip(paths, targets, strict=True), 1):
            token.check()
            try:
                image = open_picture(path, pad_color)
                fitted = apply_fit(image, sizing.place(image.size).fit(), pad_color)
            except (BadPicture, Misfit) as error:
                yield Notice(text=f"left out: {error}", where=str(path))
                continue
            content = io.BytesIO()
            fitted.save(content, "PNG")
            journal.write(target, content.getvalue())
            for suffix in CAPTION_SUFFIXES:
                if path.with_suffix(suffix).is_file():
                    journal.write(target.with_suffix(suffix), path.with_suffix(suffix).read_bytes())
            written += 1
            yield Phase(name="preparing pictures", done=number, total=len(paths), unit="pictures")
    finally:
        journal.close()
    yield Finished(result={"out": str(out), "pictures": written, "left_out": len(paths) - written})


def _check_free(targets: list[Path]) -> None:
    seen: set[Path] = set()
    for path in targets:
        if path in seen or path.exists():
            raise UserError("it would be overwritten", where=str(path), fix="choose an empty folder")
        seen.add(path)


def move_tagged(source: Path, out: Path, tag: str, token: CancelToken) -> Result:
    """Move the pictures whose caption has the tag, with their captions, to `out`. `Finished` says how many."""
    check_folders(source, out)
    journal, moved = Journal(out), 0
    chosen = [(picture, file) for picture, file, text in captions_below(source) if tag in split_tags(text)]
    try:
        for number, (picture, file) in enumerate(chosen, 1):
            token.check()
            for path in filter(None, (picture, file)):
                journal.move(path, out / path.relative_to(source))
            moved += 1
            yield Phase(name="moving pictures", done=number, total=len(chosen), unit="pictures")
    finally:
        journal.close()
    yield Finished(result={"out": str(out), "pictures": moved})
