"""What a person or a program can do with merging, in plain data: methods, outlook, start, compare, repeat.

A form is a mapping of `MergeSettings`' names to raw values, models by the name or title that the host lists, and
`name` for the file to write. torch is imported when a question needs it, not before.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_sdtrain.api.merging_files import MergeFiles
from lib_sdtrain.api.merging_forecast import forecast
from lib_sdtrain.api.merging_history import History
from lib_sdtrain.api.merging_live import LiveMerging
from lib_sdtrain.api.merging_pictures import PicturePlan, draw_rows
from lib_sdtrain.api.merging_presets import MergePresets
from lib_sdtrain.errors import Problem, Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase
from lib_sdtrain.host.protocol import Host
from lib_sdtrain.jobs import Job, JobRunner
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.parse import build

MERGE, DIFFERENCE, PICTURES = "merge", "merge-difference", "merge-pictures"
OF_METHODS = ("gamma", "density", "drop_rate", "seed")
OF_COMMANDS = ("out", "recipe", "search", "threads")
"""Settings that a form does not have: where files are looked for and written is the host's business."""
_METHOD_FIELDS = ("name", "title", "formula", "sentence", "source", "params", "models", "many", "beta", "uses_beta")
MODEL_NEEDED = "a checkpoint is needed"
_MODELS = ("a", "b", "c")


@dataclass(frozen=True)
class MergeOutlook:
    """What would happen: facts about the file that would be written, or why none can be."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class MergeService:
    """Merging on a host's machine, one job at a time."""

    def __init__(self, host: Host, runner: JobRunner) -> None:
        self.host, self.runner = host, runner
        self.files = MergeFiles(host)
        self.presets = MergePresets(host.output_dir() / "merge-presets.txt", self.files)
        self.history = History(host.output_dir() / "merges.jsonl")
        self.live = LiveMerging(host, runner, self.settings)
        self._differences: dict[tuple[Any, ...], dict[str, Any]] = {}

    # what can be chosen

    def methods(self) -> list[dict[str, Any]]:
        """Every method: name, title, formula, sentence, source, params, models, many, beta, uses_beta."""
        from lib_sdtrain.merge.methods import all_methods
        from lib_sdtrain.settings.merge import METHODS

        known = all_methods()
        return [{name: getattr(known[method], name) for name in _METHOD_FIELDS} for method in METHODS]

    def method(self, text: str) -> dict[str, Any]:
        """A method by name or title. Raises `UserError` for an unknown one."""
        found = next((one for one in self.methods() if text in (one["name"], one["title"])), None)
        if found is None:
            raise UserError(f"there is no method {text!r}", where="method", fix="choose one of the list")
        return found

    def example(self, method: str, alpha: float, beta: float, form: Mapping[str, Any]) -> dict[str, list[float]]:
        """What a method makes of twelve example weights: the models' and the merged ones."""
        from lib_sdtrain.merge.example import example

        settings = build(MergeSettings, {name: form[name] for name in OF_METHODS if form.get(name) not in (None, "")})
        return example(method, alpha, beta, {name: getattr(settings, name) for name in OF_METHODS})

    def blocks(self, model: str) -> dict[str, Any]:
        """`family` and `names` of the blocks of a checkpoint. Raises `UserError` when it cannot be read."""
        from lib_sdtrain.merge.blocks import LAYOUTS
        from lib_sdtrain.model.checkpoint import open_checkpoint

        checkpoint = open_checkpoint(self.files.checkpoint(model, "a"))
        with checkpoint.tensors:
            family = checkpoint.family
        return {"family": family.name, "names": list(LAYOUTS[family.name].names), "resolution": family.resolution}

    # settings

    def relevant(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a form that its method uses: what is hidden does not count."""
        method = self.method(str(form.get("method") or "weighted_sum"))
        unused = set(_MODELS[method["models"]:]) if not method["many"] else set()
        unused |= set() if method["many"] else {"model"}
        unused |= set(OF_METHODS) - set(method["params"]) - ({"seed"} if "generator" in method["params"] else set())
        unused |= set() if method["uses_beta"] else {"weights_beta"}
        unused |= set() if "alpha" in method["params"] else {"weights_alpha", "elements"}
        kept = {name: value for name, value in form.items() if name not in unused and value not in (None, "", [])}
        return {**kept, "method": method["name"]}

    def settings(self, form: Mapping[str, Any]) -> MergeSettings:
        """The settings of a form. Raises `UserError` with every mistake, also for paths that this page may not use."""
        problems, values = Problems(), self.relevant(form)
        name = values.pop("name", "")
        for role in ("a", "b", "c", "vae"):
            if role in values:
                values[role] = problems.tried(self.files.checkpoint, values[role], role)
        for role in ("weights_alpha", "weights_beta"):
            if isinstance(values.get(role), str):
                values[role] = problems.tried(self.files.weights, values[role], role)
        for role in ("model", "lora", "presets"):
            if role in values:
                values[role] = problems.tried(self.files.many, values[role], role)
        for role in filter(values.__contains__, OF_COMMANDS):
            problems.add("is a setting of the command alone", where=role, fix="leave it out")
        values = {key: value for key, value in values.items() if value is not None and key not in OF_COMMANDS}
        out = problems.tried(self.files.target, name, values)
        settings = problems.tried(build, MergeSettings, {**values, "out": str(out) if out else ""})
        problems.raise_if_any()
        return settings

    def outlook(self, form: Mapping[str, Any]) -> MergeOutlook:
        """The facts of a merge (see `forecast`), or all its mistakes: those of the name do not hide the others."""
        problems, facts = Problems(), {}
        settings = problems.tried(self.settings, form)
        if settings is None and form.get("name"):
            settings = Problems().tried(self.settings, {**form, "name": ""})
        if settings is not None:
            facts = problems.tried(forecast, settings, self.history.entries()) or {}
        return MergeOutlook({} if problems.found else facts, tuple(problems.found))

    # jobs

    def start(self, form: Mapping[str, Any]) -> Job:
        """Start a merge. Raises `UserError` for mistakes, and when a job is running."""
        settings = self.settings(form)
        forecast(settings, [])
        Path(str(settings.out)).parent.mkdir(parents=True, exist_ok=True)
        kept = self.relevant(form)
        return self.runner.start(MERGE, Path(str(settings.out)).name, lambda token: self._merge(settings, kept, token))

    def _merge(self, settings: MergeSettings, form: dict[str, Any], token: CancelToken) -> Iterator[Event]:
        from lib_sdtrain.merge import merge

        times: list[tuple[float, int]] = []
        for event in merge(settings, token):
            if isinstance(event, Phase) and event.name == "merging":
                times.append((event.time, event.done))
            if isinstance(event, Finished):
                self.history.add(form, event.result, times)
            yield event

    def difference(self, a: str, b: str, convention: str = "mbw") -> dict[str, Any] | None:
        """The known difference of two checkpoints (`distance.compare`'s document without single tensors), or None."""
        try:
            return self._differences.get(self._pair(a, b, convention))
        except UserError:
            return None

    def start_difference(self, a: str, b: str, convention: str = "mbw") -> Job:
        """Start comparing two checkpoints. Raises `UserError` for mistakes, and when a job is running."""
        problems = Problems()
        for role, model in (("a", a), ("b", b)):
            if not model:
                problems.add(MODEL_NEEDED, where=role, fix="choose one")
        problems.raise_if_any()
        pair = self._pair(a, b, convention)
        label = f"{Path(pair[0]).stem} and {Path(pair[2]).stem}"
        return self.runner.start(DIFFERENCE, label, lambda token: self._compare(pair, token))

    def _pair(self, a: str, b: str, convention: str) -> tuple[Any, ...]:
        found: list[Any] = []
        for role, model in (("a", a), ("b", b)):
            path = self.files.path(model, role)
            found += [str(path), path.stat().st_mtime_ns if path.exists() else 0]
        return (*found, convention)

    def _compare(self, pair: tuple[Any, ...], token: CancelToken) -> Iterator[Event]:
        from lib_sdtrain.merge.distance import compare

        for event in compare(pair[0], pair[2], token, pair[4]):
            if isinstance(event, Finished):
                document = {name: event.result[name] for name in ("blocks", "layers", "seconds")}
                self._differences[pair] = document
                yield Finished(result={"blocks": len(document["blocks"]), "seconds": document["seconds"]})
            else:
                yield event

    def start_pictures(self, form: Mapping[str, Any], plan: PicturePlan) -> Job:
        """Start drawing the models of a form and the merged file that it made last, from the same seeds.

        Raises `UserError` for mistakes, and when a job is running.
        """
        kept = self.relevant(form)
        given = {role: self.files.checkpoint(str(kept[role]), role) for role in _MODELS if kept.get(role)}
        rows = [(f"{role.upper()} {Path(model).stem}", model) for role, model in given.items()]
        if plan.merged:
            rows.append((Path(plan.merged).stem, self.files.checkpoint(plan.merged, "merged")))
        if not rows:
            raise UserError("there is no model to draw with", where="a", fix="choose one")
        folder = self.host.output_dir() / "merge-pictures"
        requests = plan.requests(self.blocks(rows[0][1])["resolution"])
        names = " | ".join(name for name, _ in rows)
        return self.runner.start(PICTURES, names, lambda token: draw_rows(rows, requests, folder, token))

    # what was merged

    def again(self, source: str) -> tuple[dict[str, Any], list[str]]:
        """The form of an earlier merge, from the history (by its label) or a merged file's recipe; and notes.

        Raises `UserError` when there is none.
        """
        entry = self.history.labelled(source)
        if entry is not None:
            return dict(entry["form"]), []
        from lib_sdtrain.api.merging_recipes import form_of_recipe

        return form_of_recipe(self.files.path(source, "again"), self.files)
