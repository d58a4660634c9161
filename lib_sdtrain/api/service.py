"""What a person or a program can do with training, in plain data: list, plan, start, resume, stop."""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.api.cards import carded
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.copies import command_line, yaml_of
from lib_sdtrain.api.engine import Engine, Place
from lib_sdtrain.api.last import LastChoice
from lib_sdtrain.api.pace import PaceBook, amounts
from lib_sdtrain.api.presets import PresetFolder
from lib_sdtrain.api.runs import RunEntry, find_run, list_runs, past_events
from lib_sdtrain.api.setting_paths import paths_of
from lib_sdtrain.durable import safe_name, temporary_beside
from lib_sdtrain.errors import Problem, Problems, UserError
from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.host.protocol import CheckpointEntry, Host, entry_called
from lib_sdtrain.host.standalone import TOYBOX
from lib_sdtrain.jobs import Job, JobRunner
from lib_sdtrain.places import check_writable
from lib_sdtrain.settings.layers import Layer, Resolved, resolve, to_plain
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import LORA
from lib_sdtrain.train.results import SUFFIX, check_overwrites, chosen_places, results_called

TOYBOX_PRESET = "toybox-dreambooth"
TAB = "this page"
MOST_GIGABYTES = 2**20


@dataclass(frozen=True)
class Outlook:
    """What would happen: the dry run's document, or why nothing can."""

    document: Mapping[str, Any]
    problems: tuple[Problem, ...]
    origins: Mapping[str, tuple[str, str]]


class TrainService:
    """Training on a host's machine, one job at a time."""

    def __init__(self, host: Host, engine: Engine, runner: JobRunner) -> None:
        self.host, self.engine, self.runner = host, engine, runner
        self.presets = PresetFolder(engine, host.output_dir() / "presets")
        self.pace = PaceBook(host.output_dir() / "pace.json")
        self.last = LastChoice(host.output_dir() / "last-settings.yaml")
        self.claimed: Callable[[], set[str]] = set  # names of files that the queue will write

    @property
    def place(self) -> Place:
        """Where runs compute and write."""
        return Place(self.host.output_dir(), self.host.device(), self.host.studio())

    def checkpoints(self) -> list[CheckpointEntry]:
        """What can be trained, the loaded one first."""
        return self.host.checkpoints()

    def checkpoint_named(self, text: str) -> str:
        """The settings' name of a checkpoint from what the page shows; a path stays a path."""
        entry = entry_called(self.checkpoints(), text)
        return entry.name if entry else text

    def resolve(self, choice: Choice) -> Resolved[RunSettings]:
        """The settings in force. Raises `UserError` with every wrong value."""
        here, given = self._here(), [Layer(TAB, self._named(choice.changes))]
        if choice.preset:
            given.insert(0, Layer(f"preset {choice.preset}", self._named(self.presets.values(choice.preset)), True))
        resolved = self.engine.resolve([Layer(self.host.name, here), *given], self.host.device())
        folder = self.host.lora_dir() if resolved.settings.method.kind == LORA else None
        if folder is None:
            return resolved
        here |= {"save.dir": str(folder)}
        return self.engine.resolve([Layer(self.host.name, here), *given], self.host.device())

    def _named(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the checkpoint as settings call it, where they say the host's title."""
        title = values.get("model.checkpoint")
        return {**values, "model.checkpoint": self.checkpoint_named(title)} if isinstance(title, str) else values

    def _here(self) -> dict[str, Any]:
        """What the host has its own word on."""
        loaded, folder, embeddings = self.host.current(), self.host.checkpoint_dir(), self.host.embeddings_dir()
        values = {"model.checkpoint": loaded.name} if loaded else {}
        if folder:
            values["save.dir"] = str(folder)
        if embeddings:
            values["save.embedding_dir"] = str(embeddings)
            if embeddings.is_dir():
                values["model.embeddings_dir"] = str(embeddings)
        return values

    def outlook(self, choice: Choice) -> Outlook:
        """The plan of a run, or all its mistakes."""
        try:
            resolved = self.resolve(choice)
        except UserError as error:
            return Outlook({}, (*error.problems, *self._other_mistakes(choice, error)), {})
        plain = to_plain(resolved.settings)
        origins = {path: (_shown(_at(plain, path)), name) for path, name in resolved.origins.items()}
        problems = self._confinement(resolved.settings)
        document: Mapping[str, Any] = {}
        if not problems.found:
            try:
                document = self.timed(resolved.settings, self.engine.plan(resolved.settings, self.place))
                document = {**document, "notices": [*resolved.notices(), *document.get("notices", ())]}
            except UserError as error:
                problems.absorb(error)
        problems.tried(check_writable, self.host.output_dir(), "outputs")
        return Outlook(document, tuple(problems.found), origins)

    def fit(self, choice: Choice, gigabytes: float | None = None) -> dict[str, Any]:
        """What makes a run fit into so much memory, or into what the device has: `changes` of settings by path, `lines`
        that say why and what it costs, whether it `fits` then, and the bytes it needs (`memory_bytes`) and needed.

        Raises `UserError` with all mistakes of the run.
        """
        if gigabytes is not None and not 0 < gigabytes <= MOST_GIGABYTES:
            raise UserError(f"{gigabytes} GB is no size of a memory", where="gigabytes", fix="for instance 8")
        settings = self.resolve(choice).settings
        self.forbidden(settings).raise_if_any()
        return self.engine.fit(settings, self.place, gigabytes)

    def _other_mistakes(self, choice: Choice, error: UserError) -> tuple[Problem, ...]:
        """What else is wrong, found without the values that cannot be read."""
        unread = {problem.where for problem in error.problems}
        rest = {path: value for path, value in choice.changes.items() if path not in unread}
        return self.outlook(Choice(choice.preset, rest)).problems if len(rest) < len(choice.changes) else ()

    def timed(self, settings: RunSettings, document: dict[str, Any]) -> dict[str, Any]:
        """The dry run's document with `seconds`, None when no run like it was ever measured here."""
        workload = str(document.get("workload", ""))
        return {**document, "seconds": self.pace.seconds(workload, amounts(settings, document))}

    def start(self, choice: Choice) -> Job:
        """Start a run. Raises `UserError` for mistakes, and when a job is running."""
        settings = self.resolve(choice).settings
        self._confinement(settings).raise_if_any()
        check_writable(self.host.output_dir(), "outputs")
        place = self.place
        workload = str(self.engine.plan(settings, place).get("workload", ""))

        def work(token: CancelToken) -> Iterator[Event]:
            return carded(self.pace.measuring(workload, self.engine.train(settings, place, token)), self.host)

        return self.runner.start("train", self.label(settings), work)

    def label(self, settings: RunSettings) -> str:
        """What a run is called."""
        return settings.save.name or (settings.data.concepts[0].name if settings.data.concepts else "run")

    def claims(self, settings: RunSettings) -> tuple[str, ...]:
        """Names of files outside of its own folder that a run will write."""
        return tuple(f"{stem}{SUFFIX}" for _kind, _folder, stem in chosen_places(settings))

    def add_toybox(self) -> str:
        """Copy the built-in model to where the host looks for checkpoints; its name there.

        Raises `UserError` when there is no such place or no room.
        """
        folder = self.host.checkpoint_dir()
        if folder is None:
            raise UserError("there is no WebUI to add it to", where="toybox")
        target = folder / TOYBOX.path.name
        # the description first: only it tells the number of attention heads
        for source in (TOYBOX.path.with_suffix(".yaml"), TOYBOX.path):
            if not (copy := folder / source.name).exists():
                copy_atomically(source, copy)
        self.host.adopt(target)
        return target.name

    def free_name(self, name: str, kind: str = "") -> str:
        """The name, numbered when the host has results of it where a method's are kept, or the queue will write one."""
        loras = self.host.lora_dir() if kind == LORA else None
        folder, first, claimed = loras or self.host.checkpoint_dir(), safe_name(name), self.claimed()

        def taken(stem: str) -> bool:
            return bool(results_called(folder, stem)) or f"{stem}{SUFFIX}" in claimed

        if not name or not folder or not taken(first):
            return name
        base, _, end = first.rpartition("-")
        counted = end.isdigit() and taken(base)  # this page numbered it
        stem, number = (base, int(end)) if counted else (first, 1)
        while taken(f"{stem}-{number + 1}"):
            number += 1
        return f"{stem}-{number + 1}"

    def with_free_name(self, settings: RunSettings) -> RunSettings:
        """The settings with a name of which there are no results yet."""
        name = self.free_name(self.label(settings), settings.method.kind)
        return settings if name == self.label(settings) else replace(settings, save=replace(settings.save, name=name))

    def runs(self) -> list[RunEntry]:
        """Runs in the output folder, the newest first."""
        return list_runs(self.host.output_dir() / "runs")

    def resume(self, run: str, changes: Mapping[str, Any] = ()) -> Job:  # type: ignore[assignment]
        """Go on with a run by its folder's name. Raises `UserError` when it has nothing to go on from."""
        entry = self.resumable(run)
        self._check_changes(entry, dict(changes))
        return self.runner.start("train", entry.label, self._resuming(entry.path, dict(changes)))

    def _check_changes(self, entry: RunEntry, changes: Mapping[str, Any]) -> None:
        """Raise `UserError` for wrong values, and for paths that this page may not use."""
        before = Layer("config.yaml", textfiles.read_mapping(entry.path / "config.yaml"))
        known = set(paths_of(resolve(RunSettings, [before]).settings))
        problems = Problems()
        for path, value in paths_of(resolve(RunSettings, [before, Layer("changes", changes)]).settings):
            if value and (path, value) not in known:
                problems.tried(self.host.allowed_path, value, path)
        problems.raise_if_any()

    def run_named(self, run: str) -> RunEntry | None:
        """A run by its folder's name, None when there is none."""
        return find_run(self.host.output_dir() / "runs", run)

    def resumable(self, run: str) -> RunEntry:
        """A run that can go on. Raises `UserError` for any other."""
        entry = self.run_named(run)
        if entry is None:
            raise UserError(f"there is no run {run!r}", where="run", fix="choose one of the list")
        if not entry.resumable:
            raise UserError("it has no saved state to go on from", where=entry.name, fix="start it anew")
        return entry

    def _resuming(self, path: Path, changes: Mapping[str, Any]) -> Any:
        def work(token: CancelToken) -> Iterator[Event]:
            return carded(chain(past_events(path), self.engine.resume(path, changes, self.place, token)), self.host)

        return work

    def _confinement(self, settings: RunSettings) -> Problems:
        """Paths that this page may not use, and files that it would overwrite."""
        problems = self.forbidden(settings)
        check_overwrites(settings, problems)
        return problems

    def forbidden(self, settings: RunSettings) -> Problems:
        """Paths that this page may not use."""
        problems = Problems()
        for path, value in paths_of(settings):
            if value:
                problems.tried(self.host.allowed_path, value, path)
        known = {entry.name for entry in self.checkpoints()}
        checkpoint = settings.model.checkpoint
        if checkpoint not in known:
            problems.tried(self.host.allowed_path, checkpoint, "model.checkpoint")
        return problems

    def preset_values(self, choice: Choice) -> dict[str, Any]:
        """What a preset of one's own has to hold to say the same as a choice, by path."""
        own = resolve(RunSettings, [Layer("preset", self.presets.values(choice.preset)), Layer(TAB, choice.changes)])
        plain = to_plain(own.settings)
        return {path: _at(plain, path) for path in own.origins}

    def yaml(self, choice: Choice) -> str:
        """The settings that somebody chose, as a file for `train --config`."""
        return yaml_of(self.resolve(choice))

    def command(self, choice: Choice) -> str:
        """The same run as a command line, with what only the host knows."""
        resolved = self.resolve(choice)
        plain = to_plain(resolved.settings)
        here = {path: _at(plain, path) for path, origin in resolved.origins.items() if origin == self.host.name}
        preset = str(self.presets.file(choice.preset).resolve()) if self.presets.own(choice.preset) else ""
        return command_line(choice, preset, here)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file so that the target is whole or not there. Raises `UserError` when it cannot be written."""
    temporary = temporary_beside(target)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"it cannot be copied: {error.strerror}", where=str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _at(plain: Mapping[str, Any], path: str) -> Any:
    value: Any = plain
    for part in path.split("."):
        value = value[part]
    return value


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} given"
    return "off" if value is None else str(value)
