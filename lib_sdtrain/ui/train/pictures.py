"""The pictures of a folder as thumbnails with captions, and pictures that were dropped on the page."""
from __future__ import annotations

import base64
import filecmp
import html
import io
import shutil
from functools import lru_cache
from itertools import chain, count
from pathlib import Path

from lib_sdtrain.data.concepts import find_pictures, read_caption
from lib_sdtrain.data.listing import CAPTION_SUFFIXES
from lib_sdtrain.data.pictures import BadPicture, open_picture
from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import UserError

SHOWN = 18
THUMBNAIL = (112, 112)
KEPT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", *CAPTION_SUFFIXES)


@lru_cache(maxsize=256)
def thumbnail(path: Path, modified: float) -> str:
    """A data URI and the size of a picture as HTML; a broken one shows its name. `modified` is the cache's key."""
    del modified
    try:
        picture = open_picture(path)
    except BadPicture as error:
        return f"<div class='sdtrain-broken'>{html.escape(path.name)}: {html.escape(str(error))}</div>"
    words = html.escape(f"{path.name}, {picture.width} x {picture.height}")
    picture.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{words}' title='{words}' src='data:image/jpeg;base64,{data}'>"


def _caption(path: Path) -> str:
    try:
        return read_caption(path) or ""
    except UserError as error:
        return f"! {error}"


def thumbnails_html(folder: Path | None) -> str:
    """Thumbnails of the first pictures in a folder, each with its caption; empty for no folder."""
    if folder is None or not folder.is_dir():
        return ""
    found = find_pictures(folder)
    cells = []
    for path in found[:SHOWN]:
        words = html.escape(_caption(path))
        cells.append(
            f"<figure>{thumbnail(path, path.stat().st_mtime)}<figcaption title='{words}'>{words}</figcaption></figure>"
        )
    more = f"<p class='sdtrain-note'>and {len(found) - SHOWN} more</p>" if len(found) > SHOWN else ""
    return f"<div class='sdtrain-thumbs'>{''.join(cells)}</div>{more}"


def _names_for(files: list[Path], folder: Path) -> dict[str, str]:
    """A safe name for each name of the dropped files, a caption's that of its picture.

    Names that come to the same are numbered, also beside another picture that is there already.
    """
    names: dict[str, str] = {}
    for stem in dict.fromkeys(path.stem for path in files):
        first = safe_name(stem)
        mine = [path for path in files if path.stem == stem and path.suffix.lower() not in CAPTION_SUFFIXES]
        used = {name.lower() for name in names.values()}
        tried = chain([first], (f"{first}-{number}" for number in count(2)))
        names[stem] = next(name for name in tried if name.lower() not in used and not any(
            _differs(path, folder / f"{name}{path.suffix.lower()}") for path in mine))
    return names


def _differs(path: Path, there: Path) -> bool:
    return there.exists() and not filecmp.cmp(path, there, shallow=False)


def keep_dropped(files: list[str], folder: Path) -> Path:
    """Copy dropped pictures and captions into `folder`, under names that are safe.

    Raises `UserError` when none of them is a picture or caption, or the folder cannot be written.
    """
    kept = [path for path in map(Path, files) if path.suffix.lower() in KEPT_SUFFIXES]
    if not kept:
        raise UserError("none of the dropped files is a picture", where="pictures", fix="drop PNG, JPEG or WebP files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = _names_for(kept, folder)
        for path in kept:
            shutil.copyfile(path, folder / f"{names[path.stem]}{path.suffix.lower()}")
    except OSError as error:
        raise UserError(f"the pictures cannot be kept: {error}", where=str(folder)) from error
    return folder
