"""The form's values: what preset and page say, and which of them the user changed."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.settings.applies import applies
from lib_sdtrain.settings.fields import Declared, declared, get_path
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.ui.controls import element_id, raw, shown
from lib_sdtrain.ui.train.concepts import CONCEPTS, FIRST, Concepts, blank_entry, concept_items, shown_entry

PREVIEWS = "preview.prompts"
INSTANCE_DIR, PROMPT, CLASS_PROMPT = f"{FIRST}.instance_dir", f"{FIRST}.instance_prompt", f"{FIRST}.class_prompt"


def form_items() -> list[tuple[str, Declared]]:
    """Every setting that has a control, with its path; the first concept's settings stand for the list's."""
    items: list[tuple[str, Declared]] = []
    for item in declared(RunSettings):
        if item.path == CONCEPTS:
            items += [(f"{FIRST}.{part.path}", part) for part in concept_items()]
        else:
            items.append((item.path, item))
    return items


def default_values() -> dict[str, Any]:
    """What every control shows when nothing is set, and the concepts behind the one that is shown."""
    values = {path: shown(item, item.default) for path, item in form_items()}
    return {**values, CONCEPTS: Concepts((blank_entry(),)).as_state()}


def idle_controls(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> list[str]:
    """The paths of settings that do not matter as the others stand, and stand as they do by themselves or in `base`,
    which is what a preset filled in.

    What a further stage may turn on matters.
    """
    if values["stages"]:
        return []

    def matters(path: str, item: Declared) -> bool:
        beside = path.removesuffix(item.path)  # a concept's settings name each other without the concept
        return applies(item.meta.applies, lambda name: values[beside + name if beside + name in values else name])

    untouched = (default_values(), base or {})
    return [path for path, item in form_items()
            if not matters(path, item) and any(path in own and values[path] == own[path] for own in untouched)]


def idle_html(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> str:
    """Tells the page which controls to keep out of sight."""
    return f"<span data-idle='{' '.join(map(element_id, idle_controls(values, base)))}'></span>"


@dataclass(frozen=True)
class Form:
    """Translates between the controls' values, by path, and a `Choice`."""

    service: TrainService

    def filled(self, choice: Choice) -> dict[str, Any]:
        """What every control shows for a choice. Raises `UserError` for a broken preset.

        What was left out of the preset is shown as the preset has it: it comes back when there is a use for it again.
        """
        resolved = self.service.resolve(choice)
        settings = resolved.settings
        concepts = Concepts(tuple(map(shown_entry, settings.data.concepts)) or (blank_entry(),))
        values = {path: shown(item, get_path(settings, path))
                  for path, item in form_items() if not path.startswith(FIRST)}  # fmt: skip
        values["model.checkpoint"] = self.title_of(settings.model.checkpoint)
        base = self.filled(Choice(choice.preset)) if resolved.left_out else {}
        kept = {path: base[path] for path in resolved.left_out if path in values}
        return {**values, **kept, **concepts.controls(), CONCEPTS: concepts.as_state()}

    def title_of(self, checkpoint: str) -> str:
        """What the page calls a checkpoint."""
        entries = self.service.checkpoints()
        return next((entry.title for entry in entries if checkpoint in (entry.name, entry.title)), checkpoint)

    def choice(self, preset: str, values: Mapping[str, Any]) -> Choice:
        """The choice that the controls stand for: only what differs from the preset counts as the user's."""
        base = self.filled(Choice(preset))
        changes = {}
        for path, item in form_items():
            ours = path in values and not path.startswith(FIRST)
            if ours and values[path] != base[path] and values[path] is not None:
                changes[path] = raw(item, values[path])
        if "model.checkpoint" in changes:
            changes["model.checkpoint"] = self.service.checkpoint_named(str(changes["model.checkpoint"]))
        before, after = Concepts.of(base).entries, Concepts.of(values).entries
        return Choice(preset, {**changes, **concept_changes(before, after)})

    def after_preset(self, old: str, new: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Controls for another preset; what the user changed stays unless the new preset has its own word on it."""
        spoken = set(self.service.presets.values(new))
        kept = {path: value for path, value in self.choice(old, values).changes.items() if path not in spoken}
        if any(path.startswith(CONCEPTS) for path in spoken):
            kept = {path: value for path, value in kept.items() if not path.startswith(CONCEPTS)}
        return self.with_free_name(self.filled(Choice(new, kept)))

    def with_free_name(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same with a name for the result that is not taken."""
        return {**values, "save.name": self.service.free_name(
            values["save.name"], values.get("method.kind", ""))}


def concept_changes(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What turns the concepts `before` into those `after`: single settings, or the whole list when one is gone."""
    items = {item.path: item for item in concept_items()}
    blank = blank_entry()
    if len(after) < len(before):
        return {CONCEPTS: [{name: raw(items[name], value) for name, value in entry.items() if value != blank[name]}
                           for entry in after]}  # fmt: skip
    changes = {}
    for number, entry in enumerate(after):
        known = before[number] if number < len(before) else {**blank, "name": None}  # an added one at least has a name
        for name, value in entry.items():
            if value is not None and value != known[name]:
                changes[f"{CONCEPTS}.{number}.{name}"] = raw(items[name], value)
    return changes
