"""Prompt editing: which text holds at which step.

Grammar (AUTOMATIC1111 WebUI), over text in which brackets are balanced:

    [from:to:when]   `from` up to and including step `when`, then `to`
    [to:when]        nothing, then `to`                [from::when]   `from`, then nothing
    [a|b|c]          a, b, c, a, ... one step each; a part may be empty
    ( ... )  [ ... ]  (... : ...)   attention, passed on as it stands
    \\x               any character, literally

`when` with a point is a fraction of the steps, without one a step number. What does not fit stays as
it is, character for character. A `|` outside of `[a|b]` or a backslash at the very end switches editing
off for the whole prompt (so it does in the WebUI).
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, Union

_TOKEN = re.compile(r"(?P<text>(?:[^\\\[\]():|]|\\.)+)|(?P<mark>[\[\]():|])")
_WHEN = re.compile(r"\s*(?P<when>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_PAIRS = {")": "(", "]": "["}


class Interval(NamedTuple):
    """`text` holds for steps up to and including `end` (steps count from 1)."""

    end: int
    text: str


@dataclass(frozen=True)
class Steps:
    """What fractions and step numbers refer to: a first pass of `base` steps, or a hires pass after it.

    In a hires pass step numbers go on counting from `base`, and fractions run from 1 to 2; with `old`
    (timelines of WebUI before 1.6) both start again, and any number below 1 is a fraction.
    """

    base: int
    hires: int | None = None
    old: bool = False

    @property
    def total(self) -> int:
        """Steps of the pass itself."""
        return self.base if self.hires is None or self.old else self.hires

    def when(self, written: str) -> int:
        """The last step at which the left side holds."""
        value = float(written)
        second = self.hires is not None and not self.old
        if self.old:
            value = value * self.total if value < 1 else value
        elif "." in written:
            value = (value - (1 if second else 0)) * self.total
        else:
            value -= self.base if second else 0
        return int(max(min(value, self.total), -1))


@dataclass(frozen=True)
class _Switch:
    before: list[_Item]
    after: list[_Item]
    when: str


@dataclass(frozen=True)
class _Turns:
    parts: list[list[_Item]]


_Item = Union[str, _Switch, _Turns]  # noqa: UP007 - evaluated at run time on Python 3.10


@dataclass
class _Frame:
    """An open bracket: its content split at `:` and `|`."""

    bracket: str
    parts: list[list[_Item]] = field(default_factory=lambda: [[]])
    marks: list[str] = field(default_factory=list)

    def literal(self) -> list[_Item]:
        """The content with its separators, as it was written."""
        items = list(self.parts[0])
        for mark, part in zip(self.marks, self.parts[1:], strict=True):
            items += [mark, *part]
        return items


def _only_text(part: list[_Item]) -> str | None:
    return "".join(part) if all(isinstance(item, str) for item in part) else None


def _closed(frame: _Frame) -> list[_Item] | None:
    """What a bracket that has just been closed stands for; None when it fits no rule."""
    if frame.marks and set(frame.marks) == {"|"} and frame.bracket == "[":
        return [_Turns(frame.parts)]
    if "|" in frame.marks:
        return None
    if not frame.marks or (frame.bracket == "(" and len(frame.marks) == 1):
        return [frame.bracket, *frame.literal(), ")" if frame.bracket == "(" else "]"]
    if frame.bracket == "[" and len(frame.marks) <= 2:
        when = _WHEN.fullmatch(_only_text(frame.parts[-1]) or "")
        if when:
            before = frame.parts[0] if len(frame.marks) == 2 else []
            return [_Switch(before, frame.parts[-2], when["when"])]
    return None


class _Parser:
    """Brackets on a stack; one that fits no rule takes all that are open around it down to plain text."""

    def __init__(self) -> None:
        self.done: list[_Item] = []
        self.open: list[_Frame] = []

    def add(self, items: list[_Item]) -> None:
        (self.open[-1].parts[-1] if self.open else self.done).extend(items)

    def dissolve(self) -> None:
        for frame in self.open:
            self.done += [frame.bracket, *frame.literal()]
        self.open.clear()

    def mark(self, mark: str) -> None:
        if mark in "([":
            self.open.append(_Frame(mark))
        elif mark in ":|" and self.open:
            self.open[-1].marks.append(mark)
            self.open[-1].parts.append([])
        elif mark in ":|":
            self.done.append(mark)
        else:
            self.close(mark)

    def close(self, mark: str) -> None:
        items = _closed(self.open[-1]) if self.open and self.open[-1].bracket == _PAIRS[mark] else None
        if items is None:
            self.dissolve()
            self.done.append(mark)
        else:
            self.open.pop()
            self.add(items)


def _parse(prompt: str) -> list[_Item] | None:
    """The items of a prompt; None when it cannot be edited at all."""
    parser, end = _Parser(), 0
    for match in _TOKEN.finditer(prompt):
        if match.start() != end:
            return None
        end = match.end()
        if match["text"] is not None:
            parser.add([match["text"]])
        else:
            parser.mark(match["mark"])
    parser.dissolve()
    return None if end != len(prompt) or "|" in parser.done else parser.done


def _switch_points(items: list[_Item], steps: Steps) -> set[int]:
    points, todo = {steps.total}, list(items)
    while todo:
        item = todo.pop()
        if isinstance(item, _Switch):
            points.add(steps.when(item.when))
            todo += item.before + item.after
        elif isinstance(item, _Turns):
            points.update(range(1, steps.total + 1))
            todo += [inner for part in item.parts for inner in part]
    return {point for point in points if point >= 1} | {steps.total}


def _text_at(items: list[_Item], step: int, steps: Steps) -> str:
    written: list[str] = []
    todo = items[::-1]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            written.append(item)
        elif isinstance(item, _Switch):
            todo += (item.before if step <= steps.when(item.when) else item.after)[::-1]
        else:
            todo += item.parts[(step - 1) % len(item.parts)][::-1]
    return "".join(written)


def edited(prompt: str, steps: Steps) -> list[Interval]:
    """The texts of a prompt over the steps of a pass, in order; never fails.

    Source: AUTOMATIC1111 WebUI 1.10.1, prompt_parser.py:get_learned_conditioning_prompt_schedules (semantics).
    """
    items = _parse(prompt)
    if items is None:
        return [Interval(steps.total, prompt)]
    return [Interval(point, _text_at(items, point, steps)) for point in sorted(_switch_points(items, steps))]
