"""Several things to learn in one run: the form shows one concept at a time and keeps the others."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib_sdtrain.errors import Problem
from lib_sdtrain.settings.fields import Declared, declared
from lib_sdtrain.settings.run import Concept
from lib_sdtrain.ui.controls import shown

CONCEPTS = "data.concepts"
FIRST = f"{CONCEPTS}.0"  # the path of the controls, whichever concept they show
LONGEST_TITLE = 40


def concept_items() -> tuple[Declared, ...]:
    """The settings of a concept."""
    return declared(Concept)


def shown_entry(concept: Concept) -> dict[str, Any]:
    """What the controls show for a concept, by setting name."""
    return {item.path: shown(item, getattr(concept, item.path)) for item in concept_items()}


def blank_entry() -> dict[str, Any]:
    """A concept of which nothing is known yet."""
    return shown_entry(Concept())


@dataclass(frozen=True)
class Concepts:
    """All concepts of the form, and which of them the controls show."""

    entries: tuple[Mapping[str, Any], ...]
    index: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Concepts:
        """From the form's values: the shown concept is what its controls hold now."""
        state = values.get(CONCEPTS) or {"index": 0, "entries": [blank_entry()]}
        held = cls(tuple(state["entries"]), int(state["index"]))
        now = dict(held.entries[held.index])
        for name, before in now.items():
            value = values.get(f"{FIRST}.{name}")
            now[name] = before if value is None else value  # an emptied number box holds nothing
        return replace(held, entries=(*held.entries[:held.index], now, *held.entries[held.index + 1:]))

    def as_state(self) -> dict[str, Any]:
        """Plain data for the page's session."""
        return {"index": self.index, "entries": [dict(entry) for entry in self.entries]}

    def controls(self) -> dict[str, Any]:
        """What the controls show, by path."""
        return {f"{FIRST}.{name}": value for name, value in self.entries[self.index].items()}

    def titles(self) -> list[str]:
        """What the concepts are called where one is chosen, each with its number."""
        return [f"{number}: {str(entry['name'])[:LONGEST_TITLE] or 'no name'}"
                for number, entry in enumerate(self.entries, 1)]  # fmt: skip

    def chosen(self, title: str) -> Concepts:
        """Showing the concept of this title (its number counts); unchanged for any other text."""
        number = str(title).partition(":")[0]
        known = number.isdigit() and 1 <= int(number) <= len(self.entries)
        return replace(self, index=int(number) - 1) if known else self

    def added(self) -> Concepts:
        """With another one, shown."""
        number = len(self.entries) + 1
        fresh = {**blank_entry(), "name": f"{blank_entry()['name']}-{number}"}
        return Concepts((*self.entries, fresh), number - 1)

    def removed(self) -> Concepts:
        """Without the shown one; the last one stays."""
        if len(self.entries) == 1:
            return self
        rest = (*self.entries[:self.index], *self.entries[self.index + 1:])
        return Concepts(rest, min(self.index, len(rest) - 1))

    def placed(self, problem: Problem) -> Problem:
        """A mistake in a concept with the place of the control that shows it, or the concept's number in words."""
        if problem.where == CONCEPTS:
            return Problem("no pictures are given", f"{FIRST}.instance_dir", "name their folder, or drop them here")
        head, _, rest = problem.where.removeprefix(CONCEPTS).removeprefix(".").partition(".")
        if not problem.where.startswith(CONCEPTS) or not head.isdigit() or not rest or len(self.entries) == 1:
            return problem
        if int(head) == self.index:
            return replace(problem, where=f"{FIRST}.{rest}")
        return replace(problem, what=f"concept {int(head) + 1}: {problem.what}", where="")
