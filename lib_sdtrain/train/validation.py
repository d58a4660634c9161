"""Loss on held-out pictures, and the training loss without its chance: fixed pictures, timesteps and noise.

Each picture is asked at K timesteps, the middles of K equal parts of the schedule, with noise that is the same every
time. What is validated is the plain mean squared error, whatever is trained on, with the weights that would be saved,
and where the files hold an average beside them, with that too.
Right after it the training loss follows, as it is weighted, with the weights that are trained, on fixed pictures.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import torch

from lib_sdtrain.data.concepts import Material
from lib_sdtrain.data.draws import Draw, Draws
from lib_sdtrain.data.randomness import key
from lib_sdtrain.errors import Cancelled
from lib_sdtrain.events import CancelToken, Event, Phase, Validation
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import LossSettings
from lib_sdtrain.train.criterion import Criterion
from lib_sdtrain.train.forms import average_beside
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.trainer import Trainer

HELD_OUT, AVERAGE, STABLE = "validation", "average", "training"
"""What the curves are called: held-out pictures with the main form's weights, with their average; the stable loss."""


@dataclass(frozen=True)
class Sample:
    """A draw and the timestep at which it is asked."""

    draw: Draw
    timestep: int


def noise_seed(settings: RunSettings) -> int:
    """What the noise comes from that pictures are asked with: another than what they are trained with."""
    return key(settings.seed_of(settings.validation), "validation")


def strata(count: int, timesteps: int) -> list[int]:
    """The middles of `count` equal parts of 0 .. timesteps - 1."""
    return [int((part + 0.5) * timesteps / count) for part in range(count)]


def fixed_draws(material: Material, settings: RunSettings, limit: int | None = None) -> list[Draw]:
    """Each picture once (the first `limit` of a fixed order), neither mirrored nor dropped nor cropped at random."""
    data = replace(
        settings.data, flip_p=0.0, random_crop=False, caption_dropout_rate=0.0, tag_dropout_rate=0.0,
        shuffle_caption=False,
    )
    plain = Material(material.concept, material.pictures)
    draws = Draws([plain], data, noise_seed(settings))
    count = len(material.pictures) if limit is None else min(limit, len(material.pictures))
    return [draws.at(index) for index in range(count)]


def told_apart(names: Sequence[str]) -> list[str]:
    """Names of which none comes twice: a, b, b -> a, b, b 2. Concepts need no names of their own; their curves do."""
    found: list[str] = []
    for name in names:
        own, number = name, 1
        while own in found or (number > 1 and own in names):
            number += 1
            own = f"{name} {number}"
        found.append(own)
    return found


class Validator:
    """Measures a trainer's model on what the plan held out."""

    def __init__(self, plan: Plan, trainer: Trainer) -> None:
        self.plan, self.trainer = plan, trainer
        self.chosen = plan.settings.validation
        held = [material for material in plan.held_out if material.pictures]
        names = told_apart([material.concept.name for material in held])
        self.held = [(name, fixed_draws(m, plan.settings)) for name, m in zip(names, held, strict=True)]
        limit = -(-self.chosen.pictures // len(plan.materials))
        watched = plan.materials if self.held else ()
        self.trained = [draw for m in watched for draw in fixed_draws(m, plan.settings, limit)]
        table = trainer.criterion.alphas_cumprod
        self.plain = Criterion(LossSettings(), trainer.criterion.prediction_type, table)
        self.strata = strata(self.chosen.timesteps, len(table))
        self.weights: dict[str, Callable[[], AbstractContextManager[None]]] = {HELD_OUT: trainer.shown_weights}
        if beside := average_beside(plan.settings):
            self.weights[AVERAGE] = partial(trainer.averaged_weights, beside)

    def draws(self) -> list[Draw]:
        """Everything that is looked at, for caching."""
        return [draw for _, draws in self.held for draw in draws] + self.trained

    def due(self, step: int) -> bool:
        """Whether to validate after `step`: at the beginning, at the end, and every so often."""
        every = self.plan.in_steps(self.chosen.every)
        return bool(self.held) and (step in (0, self.plan.steps) or (every > 0 and step % every == 0))

    def run(self, token: CancelToken, told: Collection[str] = ()) -> Iterator[Event]:
        """Measure now, but for the losses that were `told` of this step before a stop. Stops early, and quietly, when
        the user wants to stop.
        """
        counts = [len(draws) for _, draws in self.held]
        curves = {curve: weights for curve, weights in self.weights.items() if curve not in told}
        trained = [] if STABLE in told else self.trained
        total, done = sum(counts) * len(curves) + len(trained), 0
        try:
            for curve, weights in curves.items():
                losses = []
                for name, draws in self.held:
                    with weights():
                        losses.append(self._mean(draws, self.plain, token))
                    done += len(draws)
                    yield Phase(name="validating", done=done, total=total, unit="pictures")
                    own = f"{HELD_OUT}: {name}"
                    if len(self.held) > 1 and curve == HELD_OUT and own not in told:
                        yield Validation(step=self.trainer.step, loss=losses[-1], name=own)
                whole = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
                yield Validation(step=self.trainer.step, loss=whole, name=curve)
            if trained:
                stable = self._mean(trained, self.trainer.criterion, token)
                yield Phase(name="validating", done=total, total=total, unit="pictures")
                yield Validation(step=self.trainer.step, loss=stable, name=STABLE)
        except Cancelled:
            return

    @torch.no_grad()
    def _mean(self, draws: Sequence[Draw], criterion: Criterion, token: CancelToken) -> float:
        total = 0.0
        samples = [
            Sample(replace(draw, index=number * len(self.strata) + part), step)
            for number, draw in enumerate(draws) for part, step in enumerate(self.strata)
        ]
        size = self.plan.settings.train.batch_size
        for _, same in groupby(samples, key=lambda sample: sample.draw.target):
            own = list(same)
            for first in range(0, len(own), size):
                token.check()
                total += self._losses(own[first : first + size], criterion)
        return total / len(samples)

    def _losses(self, samples: Sequence[Sample], criterion: Criterion) -> float:
        """The sum of the samples' losses."""
        seed = noise_seed(self.plan.settings)
        batch = self.trainer.batch_of([sample.draw for sample in samples], seed, criterion.settings)
        batch = replace(batch, timesteps=torch.tensor([sample.timestep for sample in samples]))
        prediction, target = self.trainer.answer(batch)
        return float(criterion.per_sample(prediction, target, batch.timesteps, batch.mask).double().sum())
