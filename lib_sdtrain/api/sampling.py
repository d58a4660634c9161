"""What a person can do with sampling, in plain data: read an infotext, see what would happen, draw, compare, grids.

A form is a mapping of `SampleRequest`'s names to raw values, with `checkpoint`, `compare` (a second checkpoint),
`x`, `x_values`, `y`, `y_values` (a grid's axes) and `other` (settings of the WebUI, one a line).
"""
from __future__ import annotations

import random
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_sdtrain.api.sampling_form import OTHER, Reading, infotext_of, read_form, request_of
from lib_sdtrain.api.sampling_grid import CHECKPOINT, MOST_CELLS, Axis, make_axis
from lib_sdtrain.api.sampling_work import COMPARE, GRID, ONE, Cell, Drawing, draw
from lib_sdtrain.errors import Problem, Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Preview
from lib_sdtrain.host.paths import is_path
from lib_sdtrain.host.protocol import CheckpointEntry, Host, entry_called
from lib_sdtrain.jobs import Job, JobRunner
from lib_sdtrain.settings.sample import RANDOM_SEED_END, SampleSettings

KIND = "sample"
RECENT = 60
_HASH = re.compile(r"\[([0-9a-f]{8,64})\]")


@dataclass(frozen=True)
class SampleOutlook:
    """What would happen: how many pictures of what size in how many steps, or every mistake."""

    kind: str = ONE
    pictures: int = 0
    sizes: str = ""
    steps: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Shown:
    """A picture that a job has announced."""

    id: str
    file: Path
    infotext: str


class SampleService:
    """Sampling on a host's machine, one job at a time."""

    def __init__(self, host: Host, runner: JobRunner) -> None:
        self.host, self.runner = host, runner
        self.recent: deque[Shown] = deque(maxlen=RECENT)

    # what can be chosen

    def checkpoints(self) -> list[CheckpointEntry]:
        """What can be sampled, the loaded one first."""
        return self.host.checkpoints()

    def checkpoint(self, text: str, where: str) -> str:
        """The engine's name of a checkpoint from a title, a name, a file name or a path.

        Raises `UserError` when there is none, or the page may not use that path.
        """
        text = (text or "").strip()
        known = entry_called(self.checkpoints(), text) if text else None
        if known is not None:
            return known.name
        for entry in self.checkpoints():
            if text and text in (entry.path.name, entry.path.stem):
                return entry.name
        if not text:
            raise UserError("no checkpoint is chosen", where=where, fix="choose one of the list")
        if not ("/" in text or "\\" in text):
            raise UserError(f"no checkpoint is called {text!r}", where=where, fix="choose one of the list")
        return str(self.host.allowed_path(text, where))

    def entry_of(self, reading: Reading) -> CheckpointEntry | None:
        """The host's checkpoint that an infotext names, by hash or by name."""
        for entry in self.checkpoints():
            hashes = _HASH.findall(entry.title)
            if reading.model_hash and any(known.startswith(reading.model_hash) for known in hashes):
                return entry
        return next((entry for entry in self.checkpoints() if reading.model and entry.path.stem == reading.model), None)

    # reading

    def read(self, text: str) -> Reading:
        """What an infotext puts into the form, with notes on what cannot be honoured. Raises `UserError`."""
        reading = read_form(text)
        notes = list(reading.notes)
        known = {path.stem.lower() for folder in self._embedding_folders() for path in _files(folder)}
        notes += [f"the embedding {name} is not here; its name is read as words"
                  for name in reading.embeddings if name.lower() not in known]
        if (reading.model or reading.model_hash) and self.entry_of(reading) is None:
            named = " ".join(filter(None, (reading.model, reading.model_hash and f"[{reading.model_hash}]")))
            notes.append(f"it was drawn with {named}, which is not in the list; the checkpoint chosen here is used")
        return replace(reading, notes=tuple(notes))

    def read_picture(self, path: Path) -> str:
        """The infotext of a picture's file. Raises `UserError`."""
        return infotext_of(path)

    # planning and drawing

    def drawing(self, form: Mapping[str, Any]) -> Drawing:
        """The job that a form asks for. Raises `UserError` with every mistake."""
        problems = Problems()
        request = problems.tried(lambda: request_of(form))
        checkpoint = problems.tried(lambda: self.checkpoint(str(form.get(CHECKPOINT) or ""), CHECKPOINT))
        other = str(form.get("compare") or "").strip()
        second = problems.tried(lambda: self.checkpoint(other, "compare")) if other else None
        x, y = (self._axis(problems, form, name) for name in ("x", "y"))
        if other and (x.field or y.field):
            problems.add("a grid and a comparison cannot be had at once", where="compare",
                         fix="put both checkpoints on an axis of the grid instead")
        if x.field and x.field == y.field:
            problems.add("both axes change the same", where="y", fix="choose another, or nothing")
        if len(x.values) * len(y.values) > MOST_CELLS:
            problems.add(f"a grid of {len(x.values) * len(y.values)} pictures is too large", where="x_values",
                         fix=f"at most {MOST_CELLS}")
        if request is not None:
            _check_sizes(problems, request)
            problems.tried(self._check_vae, request.options.sd_vae)
        problems.raise_if_any()
        settings = self._settings()
        if x.field or y.field:
            return _grid(checkpoint, _single(request), x, y, settings)
        if second:
            one = _single(request)
            cells = tuple(Cell(name, one, self._title(name)) for name in (checkpoint, second))
            return Drawing(COMPARE, cells, settings)
        return Drawing(ONE, (Cell(checkpoint, request),), settings)

    def _check_vae(self, name: str) -> None:
        """Raise `UserError` for a VAE by a path that this page may not use."""
        if is_path(name):
            self.host.allowed_path(name, OTHER)

    def _axis(self, problems: Problems, form: Mapping[str, Any], name: str) -> Axis:
        title, text = str(form.get(name) or ""), str(form.get(f"{name}_values") or "")
        return problems.tried(lambda: make_axis(title, text, name, self.checkpoint)) or Axis()

    def outlook(self, form: Mapping[str, Any]) -> SampleOutlook:
        """What would happen, or every mistake, those of the files included."""
        try:
            drawing = self.drawing(form)
            self._check(drawing)
        except UserError as error:
            return SampleOutlook(problems=tuple(error.problems))
        return _outlook(drawing)

    def _check(self, drawing: Drawing) -> None:
        """Raise `UserError` for what the engine can know to be wrong without loading anything."""
        from lib_sdtrain.sample.engine import check

        found: dict[Problem, None] = {}
        for cell in dict.fromkeys(drawing.cells):
            settings = replace(drawing.settings, checkpoint=cell.checkpoint, out="-", requests=(cell.request,))
            try:
                check(settings)
            except UserError as error:
                found |= dict.fromkeys(error.problems)
        if found:
            raise UserError(list(found))

    def start(self, form: Mapping[str, Any]) -> Job:
        """Start drawing. Raises `UserError` for mistakes, and when a job is running."""
        drawing = self.drawing(form)
        self._check(drawing)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        folder = self.host.output_dir() / "samples" / name

        def work(token: CancelToken) -> Iterator[Event]:
            for event in draw(drawing, folder, token):
                if isinstance(event, Preview):
                    self.recent.appendleft(Shown(uuid.uuid4().hex[:12], folder / event.file, event.infotext))
                yield event

        label = {ONE: "a picture" if drawing.count == 1 else f"{drawing.count} pictures", COMPARE: "a comparison",
                 GRID: f"a grid of {drawing.count} pictures"}[drawing.kind]
        return self.runner.start(KIND, label, work)

    # files

    def shown(self, picture: str) -> Path | None:
        """The file of a picture that was announced here; None for anything else."""
        return next((one.file for one in self.recent if one.id == picture), None)

    def _title(self, name: str) -> str:
        return next((entry.title for entry in self.checkpoints() if entry.name == name), Path(name).stem)

    def _models_folder(self) -> Path | None:
        folder = self.host.checkpoint_dir()
        return folder.parent if folder else None

    def _embedding_folders(self) -> list[Path]:
        models, own = self._models_folder(), self.host.embeddings_dir()
        return [own] if own else [models.parent / "embeddings"] if models else [Path("embeddings")]

    def _settings(self) -> SampleSettings:
        """The engine's settings: where the host keeps LoRA and embeddings, and its device."""
        models = self._models_folder()
        folders = {} if models is None else {
            "lora_dir": str(self.host.lora_dir() or models / "Lora"),
            "embeddings_dir": str(self._embedding_folders()[0]),
        }
        return SampleSettings(device=self.host.device(), **folders)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _check_sizes(problems: Problems, request: Any) -> None:
    for name in ("width", "height", "hr_resize_x", "hr_resize_y"):
        if getattr(request, name) % 8:
            problems.add(f"{getattr(request, name)} is no multiple of 8", where=name, fix="models work in steps of 8")


def _single(request: Any) -> Any:
    """One picture of a request, from a seed that is the same everywhere."""
    seeds = {name: random.SystemRandom().randrange(RANDOM_SEED_END)
             for name in ("seed", "subseed") if getattr(request, name) == -1}
    return replace(request, batch_size=1, n_iter=1, **seeds)


def _grid(checkpoint: str, request: Any, x: Axis, y: Axis, settings: SampleSettings) -> Drawing:
    cells = []
    for row, row_label in zip(y.values, y.labels, strict=True):
        for column, column_label in zip(x.values, x.labels, strict=True):
            changes = {axis.field: value for axis, value in ((x, column), (y, row)) if axis.field}
            model = changes.pop(CHECKPOINT, checkpoint)
            cells.append(Cell(model, replace(request, **changes), ", ".join(filter(None, (column_label, row_label)))))
    axes = ", ".join(
        f'Grid {name}: {axis.title}, Grid {name} values: "{", ".join(axis.written)}"'
        for name, axis in (("X", x), ("Y", y)) if axis.field
    )
    return Drawing(GRID, tuple(cells), settings, y.labels, x.labels, axes)


def _outlook(drawing: Drawing) -> SampleOutlook:
    from lib_sdtrain.sample.hires import sizes
    from lib_sdtrain.sample.samplers.registry import find_sampler

    request = drawing.cells[0].request
    size = sizes(request)
    text = f"{size.width} x {size.height}"
    if request.enable_hr:
        width, height = size.upscale_width - 8 * size.cut_x, size.upscale_height - 8 * size.cut_y
        text += f", then {width} x {height}"
    steps = 0
    for cell in drawing.cells:
        one = cell.request
        passes = [(one.sampler_name, one.steps)]
        if one.enable_hr:
            passes.append((one.hr_sampler_name or one.sampler_name, one.hr_second_pass_steps or one.steps))
        steps += one.n_iter * sum(find_sampler(name).evaluations(count) for name, count in passes)
    return SampleOutlook(drawing.kind, drawing.count, text, steps)
