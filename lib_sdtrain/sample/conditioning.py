"""What the UNet is told: prompts over the steps of a pass, as tensors."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from lib_sdtrain.sample.composition import composed
from lib_sdtrain.sample.editing import Steps, edited


@dataclass(frozen=True)
class Cond:
    """One conditioning, or N of them stacked.

    `context`: (N, tokens, width), tokens a multiple of 77. `pooled` (N, width) and `sizes` (N, 6: original height and
    width, crop top and left, target height and width) for SDXL, else None.
    """

    context: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Length along the tokens."""
        return self.context.shape[1]

    def stretched(self, tokens: int) -> Cond:
        """Cut, or its last token repeated, to a length."""
        if tokens == self.tokens:
            return self
        last = self.context[:, -1:].expand(-1, max(tokens - self.tokens, 0), -1)
        return replace(self, context=torch.cat([self.context, last], dim=1)[:, :tokens])

    def filled(self, tokens: int, empty: torch.Tensor) -> Cond:
        """Empty chunks `empty` (1, 77, width) put after it up to a length."""
        chunks = max(tokens - self.tokens, 0) // empty.shape[1]
        filling = empty.expand(len(self.context), -1, -1).repeat(1, chunks, 1)
        return replace(self, context=torch.cat([self.context, filling], dim=1))

    def repeated(self, count: int) -> Cond:
        """The same conditioning `count` times."""
        return Cond(*(None if part is None else part.expand(count, *part.shape[1:]) for part in self._parts()))

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return self.context, self.pooled, self.sizes


def stacked(conds: Sequence[Cond], count: int) -> Cond:
    """`count` of each conditioning, one after the other."""
    parts = zip(*(cond.repeated(count)._parts() for cond in conds), strict=True)
    return Cond(*(None if part[0] is None else torch.cat(part) for part in parts))


class Timeline(NamedTuple):
    """Conditionings of one text: each holds up to and including its step."""

    ends: tuple[int, ...]
    conds: tuple[Cond, ...]

    def at(self, step: int) -> Cond:
        """What holds after `step` evaluations; past the end, the first again (as the WebUI has it)."""
        return next((cond for end, cond in zip(self.ends, self.conds, strict=True) if step <= end), self.conds[0])


@dataclass(frozen=True)
class Conds:
    """Prompt (its sides with their weights) and negative prompt of a pass. `empty` is one empty chunk."""

    prompt: tuple[tuple[float, Timeline], ...]
    negative: Timeline
    empty: torch.Tensor | None = None

    def prompt_at(self, step: int) -> list[tuple[float, Cond]]:
        """The sides of AND after `step` evaluations."""
        return [(weight, line.at(step)) for weight, line in self.prompt]

    def negative_at(self, step: int) -> Cond:
        """The negative prompt after `step` evaluations."""
        return self.negative.at(step)


Encode = Callable[[Sequence[str], bool], list[Cond]]
"""encode(texts, negative): the texts of one timeline together; emphasis is normalised over all of them at once."""


@dataclass
class PromptReader:
    """Turns the prompts of a pass into tensors, each text once."""

    encode: Encode
    steps: Steps
    _known: dict[tuple[str, bool], Timeline] = field(default_factory=dict)

    def timeline(self, text: str, negative: bool = False) -> Timeline:
        """The text's conditionings over the steps."""
        if (text, negative) not in self._known:
            intervals = edited(text, self.steps)
            conds = self.encode([interval.text for interval in intervals], negative)
            self._known[text, negative] = Timeline(tuple(interval.end for interval in intervals), tuple(conds))
        return self._known[text, negative]

    def conds(self, prompt: str, negative: str, pad: bool = False) -> Conds:
        """Everything a pass needs; `pad` also encodes the empty chunk."""
        against = self.timeline(negative, True)
        sides = tuple((part.weight, self.timeline(part.text)) for part in composed(prompt))
        empty = self.encode([""], False)[0].context if pad else None
        return Conds(sides, against, empty)
