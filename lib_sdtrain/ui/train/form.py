"""The form's values: what preset and page say, and which of them the user changed."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_sdtrain.api.service import Choice, TrainService
from lib_sdtrain.settings.fields import Declared, declared, get_path
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.ui.controls import raw, shown

CONCEPTS = "data.concepts"
FIRST = f"{CONCEPTS}.0"
INSTANCE_DIR, PROMPT, CLASS_PROMPT = f"{FIRST}.instance_dir", f"{FIRST}.instance_prompt", f"{FIRST}.class_prompt"


def form_items() -> list[tuple[str, Declared]]:
    """Every setting that has a control, with its path; the first concept's settings stand for the list's."""
    items: list[tuple[str, Declared]] = []
    for item in declared(RunSettings):
        if item.path == CONCEPTS:
            items += [(f"{FIRST}.{part.path}", part) for part in declared(Concept)]
        else:
            items.append((item.path, item))
    return items


def default_values() -> dict[str, Any]:
    """What every control shows when nothing is set."""
    return {path: shown(item, item.default) for path, item in form_items()}


@dataclass(frozen=True)
class Form:
    """Translates between the controls' values, by path, and a `Choice`."""

    service: TrainService

    def filled(self, choice: Choice) -> dict[str, Any]:
        """What every control shows for a choice. Raises `UserError` for a broken preset."""
        settings = self.service.resolve(choice).settings
        concept = settings.data.concepts[0] if settings.data.concepts else Concept()
        values = {}
        for path, item in form_items():
            value = getattr(concept, item.name) if path.startswith(FIRST) else get_path(settings, path)
            values[path] = shown(item, value)
        values["model.checkpoint"] = self.title_of(settings.model.checkpoint)
        return values

    def title_of(self, checkpoint: str) -> str:
        """What the page calls a checkpoint."""
        entries = self.service.checkpoints()
        return next((entry.title for entry in entries if checkpoint in (entry.name, entry.title)), checkpoint)

    def choice(self, preset: str, values: Mapping[str, Any]) -> Choice:
        """The choice that the controls stand for: only what differs from the preset counts as the user's."""
        base = self.filled(Choice(preset))
        changes = {}
        for path, item in form_items():
            if path in values and values[path] != base[path] and values[path] is not None:
                changes[path] = raw(item, values[path])
        if "model.checkpoint" in changes:
            changes["model.checkpoint"] = self.service.checkpoint_named(str(changes["model.checkpoint"]))
        return Choice(preset, changes)

    def after_preset(self, old: str, new: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Controls for another preset; what the user changed stays unless the new preset has its own word on it."""
        spoken = set(self.service.presets.values(new))
        kept = {path: value for path, value in self.choice(old, values).changes.items() if path not in spoken}
        if any(path == CONCEPTS or path.startswith(FIRST) for path in spoken):
            kept = {path: value for path, value in kept.items() if not path.startswith(FIRST)}
        values = self.filled(Choice(new, kept))
        return {**values, "save.name": self.service.free_name(values["save.name"])}
