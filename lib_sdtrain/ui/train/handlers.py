"""What the Train sub-tab's controls do. Every handler takes plain values and returns what to show."""
from __future__ import annotations

import html
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.queue_kinds import TRAIN
from lib_sdtrain.api.service import TOYBOX_PRESET, Outlook, TrainService
from lib_sdtrain.api.services import Services
from lib_sdtrain.api.sources import preview_of, source_of
from lib_sdtrain.errors import UserError
from lib_sdtrain.ui.controls import raw, shown
from lib_sdtrain.ui.texts import notes_html, problems_html
from lib_sdtrain.ui.train.concepts import Concepts
from lib_sdtrain.ui.train.form import (
    CLASS_PROMPT,
    INSTANCE_DIR,
    PREVIEWS,
    PROMPT,
    Form,
    default_values,
    form_items,
    idle_html,
)
from lib_sdtrain.ui.train.layout import NO_PRESET
from lib_sdtrain.ui.train.pictures import keep_dropped, thumbnails_html
from lib_sdtrain.ui.train.plan_view import plan_html
from lib_sdtrain.ui.train.words import prompts, reading_html


@dataclass(frozen=True)
class Opening:
    """What a page shows first: a preset (by its title), the controls' values by path, and a word to the user."""

    preset: str
    values: dict[str, Any]
    message: str = ""


@dataclass(frozen=True)
class TrainHandlers:
    """Answers of the Train sub-tab."""

    services: Services

    @property
    def service(self) -> TrainService:
        """Training."""
        return self.services.train

    @property
    def queue(self) -> Queue:
        """What waits for its turn."""
        return self.services.queue

    @property
    def form(self) -> Form:
        """The translation between controls and choices."""
        return Form(self.service)

    def name_of(self, preset: str) -> str:
        """The preset's name from what the page shows, empty for none."""
        return "" if preset in (NO_PRESET, "", None) else self.service.presets.named(preset)

    def opening(self) -> Opening:
        """The settings of the last start, else toybox's preset; what is broken is told and left out."""
        problems = []
        for find in (self.service.last.read, self._first_choice):
            try:
                choice = find()
                if choice is not None:
                    values = self.form.with_free_name(self.form.filled(choice))
                    return Opening(self.title_of(choice.preset), values, problems_html(problems) if problems else "")
            except UserError as error:
                problems += error.problems
        return Opening(NO_PRESET, default_values(), problems_html(problems))

    def _first_choice(self) -> Choice:
        return Choice(TOYBOX_PRESET if TOYBOX_PRESET in self.service.presets.names() else "")

    def title_of(self, preset: str) -> str:
        """What the page calls a preset."""
        return self.service.presets.title(preset) if preset else NO_PRESET

    def untouched(self, preset: str) -> dict[str, Any]:
        """The controls as the preset has them. Raises `UserError` when it is broken."""
        return self.form.with_free_name(self.form.filled(Choice(self.name_of(preset))))

    def changed(self, preset: str, values: Mapping[str, Any]) -> bool:
        """Whether the user changed anything of the preset."""
        try:
            return bool(self.form.choice(self.name_of(preset), values).changes)
        except UserError:
            return True

    def idle(self, preset: str, values: Mapping[str, Any]) -> str:
        """What to keep out of sight."""
        try:
            base = self.form.filled(Choice(self.name_of(preset)))
        except UserError:
            base = {}  # a broken preset: the plan says so
        return idle_html(values, base)

    def plan(self, preset: str, values: Mapping[str, Any]) -> str:
        """The plan for what the form holds."""
        return plan_html(self._outlook(preset, values), Concepts.of(values))

    def _outlook(self, preset: str, values: Mapping[str, Any]) -> Outlook:
        try:
            return self.service.outlook(self.form.choice(self.name_of(preset), values))
        except UserError as error:
            return Outlook({}, tuple(error.problems), {})

    def thumbnails(self, folder: str) -> str:
        """Thumbnails of the pictures, where the page may look; a wrong folder is the plan's matter."""
        if not folder.strip():
            return ""
        try:
            return thumbnails_html(self.service.host.allowed_path(folder.strip(), INSTANCE_DIR))
        except UserError:
            return ""

    def words(self, identifier: str, class_word: str, keep_class: bool) -> tuple[dict[str, Any], str]:
        """Both prompts made from the words, and how CLIP reads them."""
        instance, kept = prompts(identifier, class_word, keep_class)
        return {PROMPT: instance, CLASS_PROMPT: kept}, reading_html(identifier, class_word)

    def choose_preset(self, old: str, new: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The controls for another preset. Raises `UserError` when it is broken."""
        return self.form.after_preset(self.name_of(old), self.name_of(new), values)

    def save_preset(self, name: str, preset: str, values: Mapping[str, Any]) -> str:
        """Save what differs from the defaults; says how it went."""
        try:
            choice = self.form.choice(self.name_of(preset), values)
            kept = self.service.presets.save(name, self.service.preset_values(choice))
        except UserError as error:
            return problems_html(error.problems)
        return f"<p class='sdtrain-note'>Saved as preset {html.escape(kept)}.</p>"

    def delete_preset(self, preset: str) -> tuple[str, bool]:
        """Delete a preset of the user's own; what to show, and whether it is gone."""
        try:
            gone = self.service.presets.delete(self.name_of(preset))
        except UserError as error:
            return problems_html(error.problems), False
        words = f"Deleted the preset {gone}; its settings are still below."
        return f"<p class='sdtrain-note'>{html.escape(words)}</p>", True

    def drop(self, files: list[Any] | None) -> tuple[str, str]:
        """Keep dropped pictures; the folder they are in now, and a message."""
        if not files:
            return "", ""
        folder = self.service.host.output_dir() / "pictures" / time.strftime("%Y%m%d-%H%M%S")
        try:
            kept = keep_dropped([str(getattr(file, "name", file)) for file in files], folder)
        except UserError as error:
            return "", problems_html(error.problems)
        return str(kept), ""

    def start(self, preset: str, values: Mapping[str, Any]) -> str:
        """Start the run; empty when it began, else the plan with what is wrong."""
        try:
            choice = self.form.choice(self.name_of(preset), values)
            self.service.start(choice)
        except UserError as error:
            return plan_html(Outlook({}, tuple(error.problems), {}), Concepts.of(values))
        self.service.last.write(choice)
        return ""

    def enqueue(self, preset: str, values: Mapping[str, Any]) -> tuple[str, str]:
        """Put the run into the queue; what to show, and the name for the next result."""
        try:
            choice = self.form.choice(self.name_of(preset), values)
            task = self.queue.add(TRAIN, {"preset": choice.preset, "settings": dict(choice.changes)})
        except UserError as error:
            shown = plan_html(Outlook({}, tuple(error.problems), {}), Concepts.of(values))
            return shown, str(values["save.name"] or "")
        self.service.last.write(choice)
        name = self.form.with_free_name(values)["save.name"]
        place = self.queue.brief()["waiting"]
        waits = f"waits in the queue, number {place}" if place else "begins now"
        note = f"<p class='sdtrain-note sdtrain-queued'>✓ {html.escape(task.label)} {waits}.</p>"
        return note + self.plan(preset, {**values, "save.name": name}), name

    def filled_from(self, asked: str) -> Opening:
        """The form with settings from elsewhere: `{"task": id}`, which leaves the queue, `{"run": name}`,
        `{"text": ..., "name": ...}` of a file. Raises `UserError` when there is nothing to take.
        """
        found = source_of(asked, self.services)
        values = self.form.with_free_name(self.form.filled(found.choice))
        if found.task:
            self.queue.remove(found.task)
        return Opening(self.title_of(found.choice.preset), values, notes_html(found.notes))

    def with_preview(self, infotext: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The previews with one more, which is drawn as an infotext says. Raises `UserError` for what is none."""
        item = dict(form_items())[PREVIEWS]
        found = raw(item, values[PREVIEWS]) or []
        if infotext.strip() not in found:
            found = [*found, preview_of(infotext)]
        return {**values, PREVIEWS: shown(item, found)}

    def fitted(self, preset: str, gigabytes: float | None, values: Mapping[str, Any]) -> Opening:
        """The form with what makes the run fit into memory, and what was changed. Raises `UserError` for mistakes."""
        choice = self.form.choice(preset, values)
        found = self.service.fit(choice, gigabytes)
        if not found["fits"]:
            raise UserError(found["lines"][0], where="data.resolution", fix="choose a lower resolution")
        filled = self.form.filled(Choice(preset, {**choice.changes, **found["changes"]}))
        return Opening(self.title_of(preset), filled, notes_html(found["lines"]))

    def stop(self, how: str, job: str) -> None:
        """Pass on a stop that was pressed on a page showing `job`."""
        self.service.runner.stop(how, job or None)

    def resume_last(self, job: str) -> str:
        """Go on with the run that the page shows; a message when that cannot be."""
        current = self.service.runner.job
        folder = current.run_dir if current and current.id == job else None
        try:
            self.service.resume(Path(folder).name if folder else "")
        except UserError as error:
            return problems_html(error.problems)
        return ""

    def add_toybox(self) -> str:
        """Copy toybox into the WebUI; a message."""
        try:
            name = self.service.add_toybox()
        except UserError as error:
            return problems_html(error.problems)
        return f"<p class='sdtrain-note'>{html.escape(name)} is in the WebUI's list of checkpoints now.</p>"

    def yaml(self, preset: str, values: Mapping[str, Any]) -> str:
        """The settings as a file for `train --config`. Raises `UserError` with every wrong value."""
        return self.service.yaml(self.form.choice(self.name_of(preset), values))

    def command(self, preset: str, values: Mapping[str, Any]) -> str:
        """The settings as a command line. Raises `UserError` with every wrong value."""
        return self.service.command(self.form.choice(self.name_of(preset), values))


def wish_of(asked: str) -> dict[str, Any]:
    """What a button of the page asks for; nothing for what is no wish."""
    try:
        wish = json.loads(asked or "{}")
    except ValueError:
        return {}
    return wish if isinstance(wish, dict) else {}
