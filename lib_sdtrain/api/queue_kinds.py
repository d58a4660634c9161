"""What can stand in the queue: a training run, going on with one, a merge."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.api.choice import Choice, choice_of
from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.api.queue import Order
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.errors import UserError
from lib_sdtrain.jobs import Job
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings

TRAIN, RESUME, MERGE = "train", "resume", "merge"


@dataclass(frozen=True)
class TrainKind:
    """A new run: `{"preset": name, "settings": {...}}`, kept with every setting in force."""

    service: TrainService

    def order(self, request: Mapping[str, Any]) -> Order:
        """The run with its settings as they are now: the model that is loaded, the preset as it stands."""
        choice = choice_of(request)
        outlook = self.service.outlook(choice)
        if outlook.problems:
            raise UserError(list(outlook.problems))
        settings = self.service.resolve(choice).settings
        document = outlook.document
        about = f"{document['steps']} steps, {document['images']} pictures"
        return Order({"settings": to_plain(settings)}, self.service.label(settings), about, document.get("seconds"),
                     self.service.claims(settings))  # fmt: skip

    def start(self, request: Mapping[str, Any]) -> Job:
        """Start it."""
        return self.service.start(Choice("", request["settings"]))

    def after_restart(self, request: Mapping[str, Any], run: str) -> tuple[str, Mapping[str, Any]]:
        """Go on from the run's last saved state; without one, begin again, beside what it had written by then."""
        entry = self.service.run_named(run)
        if entry and entry.resumable:
            return RESUME, {"run": run}
        settings = self.service.with_free_name(build(RunSettings, request["settings"], where="queue"))
        return TRAIN, {**request, "settings": to_plain(settings)}


@dataclass(frozen=True)
class ResumeKind:
    """Going on with a run: `{"run": folder's name, "settings": {...}}`."""

    service: TrainService

    def order(self, request: Mapping[str, Any]) -> Order:
        """The run as it stands."""
        unknown = set(request) - {"run", "settings"}
        if unknown:
            raise UserError("unknown name", where=min(unknown), fix="known: run, settings")
        changes = choice_of({"settings": request.get("settings") or {}}).changes
        entry = self.service.resumable(str(request.get("run") or ""))
        changed = ", ".join(f"{name} {value}" for name, value in changes.items())
        about = f"goes on at step {entry.step}" + (f"; {changed}" if changed else "")
        return Order({"run": entry.name, "settings": dict(changes)}, entry.label, about[:200])

    def start(self, request: Mapping[str, Any]) -> Job:
        """Start it."""
        return self.service.resume(str(request["run"]), request.get("settings") or {})

    def after_restart(self, request: Mapping[str, Any], run: str) -> tuple[str, Mapping[str, Any]]:
        """The same; its changes are in the run's config.yaml as soon as it began."""
        return RESUME, {"run": request["run"]} if run else request


@dataclass(frozen=True)
class MergeKind:
    """A merge: the Merge form, models by the names under which they are found whatever is loaded later."""

    service: MergeService

    def order(self, request: Mapping[str, Any]) -> Order:
        """The merge with its models as files."""
        outlook = self.service.outlook(request)
        if outlook.problems:
            raise UserError(list(outlook.problems))
        form = dict(request)
        for role in ("a", "b", "c"):
            if form.get(role):
                form[role] = self.service.files.checkpoint(str(form[role]), role)
        if form.get("model"):
            form["model"] = self.service.files.many(form["model"], "model")
        facts = outlook.facts
        claims = (facts["name"],) if form.get("name") else ()
        return Order(form, Path(facts["name"]).stem, str(form.get("method", "")), facts.get("seconds"), claims)

    def start(self, request: Mapping[str, Any]) -> Job:
        """Start it, with the models as the page calls them, for the list of earlier merges."""
        form = dict(request)
        for role in ("a", "b", "c"):
            if form.get(role):
                form[role] = self._title(form[role])
        return self.service.start(form)

    def _title(self, name: str) -> str:
        return next((entry.title for entry in self.service.host.checkpoints() if entry.name == name), name)

    def after_restart(self, request: Mapping[str, Any], run: str) -> tuple[str, Mapping[str, Any]]:
        """A merge that was cut off has written nothing."""
        return MERGE, request
