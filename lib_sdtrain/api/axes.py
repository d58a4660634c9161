"""Axes for the WebUI's X/Y/Z plot: live merges that vary, and a run's saved files.

A cell is whatever object the plot hands over for a picture; axes only leave marks on it. `before` then acts on all of
them at once, and `ended` puts things back.
"""
from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.api.history import History
from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.api.merging_presets import converted
from lib_sdtrain.errors import UserError

PREFIX = "[SD Train] "
MARKS, BASE = "sdtrain_axes", "sdtrain_base"
_LIVE_COST, _FILE_COST = 0.8, 1.0
_END = "end"


@dataclass(frozen=True)
class Axis:
    """One axis. `kind` is the type of its values; `check(cell, values)` runs once before the first picture."""

    label: str
    kind: type
    apply: Callable[[Any, Any, Sequence[Any]], None]
    check: Callable[[Any, Sequence[Any]], None]
    cost: float
    choices: Callable[[], list[str]] | None = None
    prepare: Callable[[str], list[str]] | None = None


class Axes:
    """The axes, and what they do to a host's loaded model."""

    def __init__(self, merge: MergeService, history: History) -> None:
        self.merge, self.history = merge, history

    def all(self) -> list[Axis]:
        """Every axis that works here."""
        steps = Axis(
            f"{PREFIX}Trained steps", str, self._steps, self._check_steps, _FILE_COST, choices=self.saved_steps
        )
        if not self.merge.live.available:
            return [steps]
        return [
            self._live("Block weight", str, "blocks", prepare=self._expanded),
            self._live("Weights of all blocks", str, "weights", choices=self.merge.presets.names),
            self._live("Alpha of all blocks", float, "alpha"),
            self._live("Beta of all blocks", float, "beta"),
            steps,
        ]

    # live merges

    @staticmethod
    def _expanded(text: str) -> list[str]:
        from lib_sdtrain.merge.ranges import expanded

        return expanded(next(csv.reader(io.StringIO(text), skipinitialspace=True), []))

    def _live(self, label: str, kind: type, name: str, **more: Any) -> Axis:
        """An axis that varies the merge that is on, which the plot starts from and ends with."""

        def apply(cell: Any, value: Any, values: Sequence[Any]) -> None:
            del values
            marks = getattr(cell, MARKS, ())  # a copy of the cell must not share them
            setattr(cell, MARKS, (*marks, (name, value)))

        def check(cell: Any, values: Sequence[Any]) -> None:
            form = self.merge.live.form
            if not form:
                fix = "tick Live in SD Train > Merge first: these axes vary what the loaded model shows"
                raise UserError("no live merge is on", where="X/Y/Z plot", fix=fix)
            setattr(cell, BASE, form)
            for value in values:
                self.merge.settings({**self.varied(form, [(name, value)]), "name": ""})

        return Axis(PREFIX + label, kind, apply, check, _LIVE_COST, **more)

    def varied(self, form: Mapping[str, Any], marks: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """The form of a cell: whole lists and single numbers first, then single blocks. Raises `UserError`."""
        from lib_sdtrain.merge.ranges import read_blocks, with_blocks

        names = self.merge.blocks(str(form["a"]))["names"]
        made = dict(form)
        for name, value in sorted(marks, key=lambda mark: mark[0] == "blocks"):
            if name in ("alpha", "beta"):
                made[f"weights_{name}"] = ",".join([repr(float(value))] * len(names))
            elif name == "weights":
                made["weights_alpha"] = self._weights(str(value), form, len(names))
            else:
                text = self._weights(_flat(made, len(names)), form, len(names))
                weights = dict(zip(names, map(float, text.split(",")), strict=True))
                made["weights_alpha"] = with_blocks(weights, read_blocks(str(value), names))
        if marks:
            made.pop("alpha", None)
        return made

    def _weights(self, text: str, form: Mapping[str, Any], count: int) -> str:
        if "," in text:
            return converted(text, count)[0]
        return self.merge.presets.text(text, count, str(form.get("presets") or ""))[0]

    def before(self, cell: Any) -> None:
        """Have the loaded model show what a cell is to be drawn with. For whoever has the machine."""
        marks, form = getattr(cell, MARKS, ()), getattr(cell, BASE, None)
        if marks and form:
            self._show(self.varied(form, marks))

    def ended(self, cell: Any) -> None:
        """The merge that was on before the plot."""
        form = getattr(cell, BASE, None)
        if form:
            self._show(form)

    def _show(self, form: Mapping[str, Any]) -> None:
        self.merge.live.show_now(self.merge.settings({**form, "name": ""}), form)

    # a run's saved files

    def saved_steps(self) -> list[str]:
        """`RUN: STEP` of every checkpoint and LoRA that a run has saved, the newest run first."""
        return list(self._saved())

    def _saved(self) -> dict[str, tuple[Path, str]]:
        found: dict[str, tuple[Path, str]] = {}
        for row in self.history.entries():
            if row["kind"] != "run":
                continue
            entry = self.history.run(row["id"])
            for file, facts in sorted(self.history.log(entry).saved.items(), key=lambda item: item[1]["step"]):
                path = entry.path / file
                if path.is_file():  # of several of a step the last is what the run is about
                    found[f"{entry.name}: {facts['step']}"] = path, facts["kind"]
        return found

    def _of_step(self, value: str) -> tuple[Path, str]:
        """The file of `RUN: STEP`, or of a step alone (or `end`) of the newest run. Raises `UserError`."""
        saved, text = self._saved(), str(value).strip()
        if text in saved:
            return saved[text]
        newest = [label for label in saved if label.rpartition(": ")[0] == next(iter(saved)).rpartition(": ")[0]]
        label = newest[-1] if newest and text == _END else next(
            (label for label in newest if label.rpartition(": ")[2] == text), None
        )  # fmt: skip
        if label is None:
            known = ", ".join(newest) or "no run has saved anything"
            raise UserError(f"no run has saved {text!r}", where=f"{PREFIX}Trained steps", fix=known)
        return saved[label]

    def _check_steps(self, cell: Any, values: Sequence[Any]) -> None:
        del cell
        for value in values:
            self._of_step(value)

    def _steps(self, cell: Any, value: Any, values: Sequence[Any]) -> None:
        del values
        path, kind = self._of_step(value)
        if kind == "lora":
            cell.prompt = f"{cell.prompt} <lora:{path.stem}:1>"
        else:
            cell.override_settings = {**cell.override_settings, "sd_model_checkpoint": path.stem}


def _flat(form: Mapping[str, Any], count: int) -> str:
    text = str(form.get("weights_alpha") or "")
    return text or ",".join([repr(float(form.get("alpha") or 0.5))] * count)
