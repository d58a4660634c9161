"""A merge that stays open: the plan, and the tensors of any of its keys, for a live merge and for the writer."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib_sdtrain.merge.compute import Computer, survey_span
from lib_sdtrain.merge.inputs import Inputs, opened
from lib_sdtrain.merge.plan import MergePlan, Step, changed
from lib_sdtrain.merge.planning import make_plan
from lib_sdtrain.settings.merge import MergeSettings

if TYPE_CHECKING:
    from typing_extensions import Self


class MergeSession:
    """An opened merge. A context manager.

        with MergeSession(settings) as session:
            for key in session.plan.steps: session.tensor(key)
            for key in session.update(new_settings): session.tensor(key)   # only what changed

    Raises `UserError` with every mistake of settings and files.
    """

    def __init__(self, settings: MergeSettings) -> None:
        self.settings = settings
        self._stack = ExitStack()
        self.inputs: Inputs
        self.plan: MergePlan
        self.computer: Computer

    def __enter__(self) -> Self:
        self._open(self.settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self, settings: MergeSettings) -> None:
        with ExitStack() as stack:
            inputs = stack.enter_context(opened(settings))
            plan = make_plan(inputs, settings)
            self._stack.close()
            self._stack = stack.pop_all()
        self.settings, self.inputs, self.plan = settings, inputs, plan
        self.computer = Computer(inputs, plan)

    def update(self, settings: MergeSettings) -> list[str]:
        """Take new settings; the keys whose tensors are now others. With mistakes the old settings stay."""
        before, span = self.plan, self.computer.span
        self._open(settings)
        if self._surveyed(before) == self._surveyed(self.plan):
            self.computer.span = span
            return changed(before, self.plan)
        return list(dict.fromkeys((*changed(before, self.plan), *self.plan.merged)))

    @staticmethod
    def _surveyed(plan: MergePlan) -> tuple[object, ...] | None:
        """What a survey's outcome depends on; None without one."""
        if plan.method.survey is None:
            return None
        return (plan.method.name, *(step.sources for step in plan.steps.values() if step.method))

    def survey(self) -> Iterator[Step]:
        """The first pass of methods that need one, a step at a time; nothing for the others."""
        look = self.plan.method.survey
        if look is None or self.computer.span is not None:
            return
        found = []
        for key in self.plan.merged:
            step = self.plan.steps[key]
            a, b = (self.inputs.models[s.role].tensors.tensor(s.key).float() for s in step.sources[:2])
            if step.channels is not None:
                a, b = a[:, : step.channels], b[:, : step.channels]
            found.append(look(a, b) if a.dim() else look(a.view(1), b.view(1)))
            yield step
        self.computer.span = survey_span(torch.cat(found)) if found else (0.0, 0.0)

    def tensor(self, key: str) -> Tensor:
        """The merged tensor of a key, bit for bit what the file would hold. Do not write to it."""
        self._ready()
        return self.computer.tensor(self.plan.steps[key])

    def tensors(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Key and tensor for `keys` (all by default), computed as they are asked for."""
        for key in self.plan.steps if keys is None else keys:
            yield key, self.tensor(key)

    def _ready(self) -> None:
        for _ in self.survey():
            pass
