"""What a sampling job does: pictures of several checkpoints and requests, one after the other, then their sheet."""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_sdtrain.events import CancelToken, Event, Finished, Notice, Phase, Preview, Saved, Started
from lib_sdtrain.settings.sample import SampleRequest, SampleSettings

ONE, COMPARE, GRID = "pictures", "compare", "grid"
SHEET = -1
"""The step under which a grid's whole sheet is announced."""


@dataclass(frozen=True)
class Cell:
    """One request of a job: the checkpoint it is drawn with and what is written beside it."""

    checkpoint: str
    request: SampleRequest
    label: str = ""


@dataclass(frozen=True)
class Drawing:
    """Everything a job needs. `rows` and `columns` are a grid's labels; cells stand row by row."""

    kind: str
    cells: tuple[Cell, ...]
    settings: SampleSettings = field(default_factory=SampleSettings)
    rows: tuple[str, ...] = ("",)
    columns: tuple[str, ...] = ("",)
    axes: str = ""

    @property
    def count(self) -> int:
        """Pictures that are drawn."""
        return sum(cell.request.count for cell in self.cells)


def draw(drawing: Drawing, folder: Path, token: CancelToken) -> Iterator[Event]:
    """`Preview` for each picture, `step` its cell and `index` its number in the cell; a grid's sheet at the end.

    Cells of one checkpoint are drawn together, so that it is loaded once.
    """
    from lib_sdtrain.sample import sample
    from lib_sdtrain.sample.images import read_infotext

    began, done, shown = time.monotonic(), 0, {}
    yield Started(job="sample", total=drawing.count, run_dir=str(folder))
    for checkpoint in dict.fromkeys(cell.checkpoint for cell in drawing.cells):
        numbers = [n for n, cell in enumerate(drawing.cells) if cell.checkpoint == checkpoint]
        places = [(n, index) for n in numbers for index in range(drawing.cells[n].request.count)]
        wanted = tuple(drawing.cells[n].request for n in numbers)
        out = folder if len(drawing.cells) == 1 else folder / f"{numbers[0]:03d}"
        yield Phase(name=f"loading {Path(checkpoint).stem}", done=done, total=drawing.count, unit="pictures")
        for event in sample(replace(drawing.settings, checkpoint=checkpoint, out=str(out), requests=wanted), token):
            if isinstance(event, Saved):
                step, index = places.pop(0)
                file, done = Path(event.file), done + 1
                shown.setdefault(step, file)
                text = read_infotext(file) or ""
                yield Preview(step=step, index=index, file=file.relative_to(folder).as_posix(), infotext=text)
            elif isinstance(event, Phase):
                yield replace(event, name=f"picture {done + 1} of {drawing.count}")
            elif isinstance(event, Notice):
                yield event
    if drawing.kind == GRID:
        yield _sheet(drawing, folder, [shown[n] for n in range(len(drawing.cells))])
    yield Finished(result={
        "kind": drawing.kind, "labels": [cell.label for cell in drawing.cells], "folder": str(folder),
        "seconds": round(time.monotonic() - began, 1),
    })  # fmt: skip


def _sheet(drawing: Drawing, folder: Path, files: Sequence[Path]) -> Preview:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from lib_sdtrain.api.sampling_grid import labelled

    opened, infotexts = [], []
    for file in files:
        with Image.open(file) as image:
            infotexts.append(image.info.get("parameters", ""))
            opened.append(image.convert("RGB"))
    width = len(drawing.columns)
    rows = [opened[start : start + width] for start in range(0, len(opened), width)]
    info, text = PngInfo(), f"{infotexts[0]}, {drawing.axes}"
    info.add_text("parameters", text)
    labelled(rows, drawing.columns, drawing.rows).save(folder / "grid.png", pnginfo=info)
    return Preview(step=SHEET, index=0, file="grid.png", infotext=text)
