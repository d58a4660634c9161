"""Opening folders of pictures in tests."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_sdtrain.data.catalogue import Catalogue
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.events import CancelToken, Event


def opened(folder: Path, **options: Any) -> tuple[list[Event], Catalogue]:
    """What was told while a folder was opened, and its pictures."""
    told, opening = [], open_folder(folder, CancelToken(), **options)
    while True:
        try:
            told.append(next(opening))
        except StopIteration as end:
            return told, end.value
