"""The difference of two checkpoints as a picture: a row a block, a column a kind of layer."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from lib_sdtrain.durable import temporary_beside
from lib_sdtrain.merge.elements import COLUMNS

OTHER = "other"
_CELL, _LEFT, _TOP, _GAP = (92, 20), 66, 44, 2
_EQUAL, _FAR = (255, 255, 255), (200, 60, 10)
_NOTHING = (235, 235, 235)


def columns_of(document: Mapping[str, Any]) -> list[str]:
    """The kinds of layer that any block has, in the order of `COLUMNS`, `other` last."""
    found = {kind for kinds in document["layers"].values() for kind in kinds}
    return [kind for kind in (*COLUMNS, OTHER) if kind in found]


def draw_heatmap(document: Mapping[str, Any], path: Path) -> None:
    """Write the distances of `distance.compare`'s document as a PNG; the largest one has the full colour."""
    columns, rows = columns_of(document), list(document["layers"])
    largest = max((cell["distance"] for row in document["layers"].values() for cell in row.values()), default=0.0)
    size = (_LEFT + (len(columns) + 1) * (_CELL[0] + _GAP), _TOP + len(rows) * (_CELL[1] + _GAP))
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for number, kind in enumerate(["whole block", *columns]):
        draw.text((_LEFT + number * (_CELL[0] + _GAP) + 2, _TOP - 16), kind, fill="black")
    draw.text((2, 4), f"difference by block and layer: white 0, full colour {largest:.3g}", fill="black")
    for number, block in enumerate(rows):
        top = _TOP + number * (_CELL[1] + _GAP)
        draw.text((2, top + 4), block, fill="black")
        cells = [document["blocks"][block], *(document["layers"][block].get(kind) for kind in columns)]
        for column, cell in enumerate(cells):
            _cell(draw, (_LEFT + column * (_CELL[0] + _GAP), top), cell, largest)
    temporary = temporary_beside(path)
    try:
        image.save(temporary, "PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cell(draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: Mapping[str, float] | None, largest: float) -> None:
    left, top = corner
    box = (left, top, left + _CELL[0] - 1, top + _CELL[1] - 1)
    if cell is None:
        draw.rectangle(box, fill=_NOTHING)
        return
    share = cell["distance"] / largest if largest else 0.0
    colour = tuple(round(near + (far - near) * share) for near, far in zip(_EQUAL, _FAR, strict=True))
    draw.rectangle(box, fill=colour)
    draw.text((left + 4, top + 4), f"{cell['distance']:.4f}", fill="black" if share < 0.7 else "white")
