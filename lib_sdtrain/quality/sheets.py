"""Contact sheets: labelled rows of pictures."""
from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from lib_sdtrain.durable import write_atomically
from lib_sdtrain.events import Event, Saved
from lib_sdtrain.quality.drawing import Drawn

LABEL, GAP = 22, 6
Row = tuple[str, Sequence[Image.Image]]


def contact_sheet(rows: Sequence[Row], cell: int = 128) -> Image.Image:
    """Rows of a title and equally many pictures, each shown `cell` pixels wide and high."""
    columns = max(len(pictures) for _, pictures in rows)
    sheet = Image.new("RGB", (columns * (cell + GAP) + GAP, len(rows) * (cell + LABEL + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(rows):
        top = number * (cell + LABEL + GAP) + GAP
        draw.text((GAP, top + 4), title, fill="black")
        for column, picture in enumerate(pictures):
            shown = picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(shown, (GAP + column * (cell + GAP), top + LABEL))
    return sheet


def save_sheet(rows: Sequence[Row], path: Path, cell: int = 128) -> Saved:
    """Write a contact sheet as PNG."""
    content = io.BytesIO()
    contact_sheet(rows, cell).save(content, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return Saved(file=str(path), kind="picture")


def write_sheets(drawn: Mapping[str, Sequence[Drawn]], folder: Path, columns: int = 8) -> Iterator[Event]:
    """The first picture of each of the first prompts: what the prompts gave, the subject, and its class."""
    def row(title: str, key: str) -> Row:
        return title, [one.pictures[0] for one in drawn[key][:columns]]

    yield save_sheet([
        (one.prompt, one.pictures) for key in ("seen", "held_out") for one in drawn[key][:6]
    ], folder / "prompts.png")  # fmt: skip
    yield save_sheet([
        row("the subject's name, before training", "subject before"),
        row("after training, with class pictures", "subject with prior"),
        row("after training, without class pictures", "subject without prior"),
    ], folder / "subject.png")  # fmt: skip
    yield save_sheet([
        row("other cats, before training", "class before"),
        row("after training, with class pictures (prior preservation)", "class with prior"),
        row("after training, without class pictures", "class without prior"),
    ], folder / "class.png")  # fmt: skip
