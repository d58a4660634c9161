"""Chained stages: one settings file, several trainings one after the other, each from the former's weights.

A stage is an ordinary run in `RUN/stage-2/`, with its own states, previews and results. It begins with the weights (and
averages) of the former's last state, in full precision; optimiser and schedule begin anew. The run as a whole counts
its steps through. As naifu-diffusion's chains of configurations (BPModel: 512, 768, 1024 pixels), without files
between.
"""
from __future__ import annotations

import gc
import hashlib
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import (
    CancelToken,
    Event,
    Finished,
    Notice,
    Preview,
    Saved,
    Started,
    Step,
    Stopped,
    Validation,
    sifted,
)
from lib_sdtrain.settings.layers import Layer, describe_changes, resolve, to_plain
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_outputs import LogSettings
from lib_sdtrain.train.held_out import hashes_of
from lib_sdtrain.train.optimizers.registry import SCHEDULE_FREE
from lib_sdtrain.train.plan import Plan, make_plan
from lib_sdtrain.train.results import chosen_places
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.starting import stage_layers
from lib_sdtrain.train.state import SavedState, newest_state
from lib_sdtrain.train.studio import Studio
from lib_sdtrain.train.token_vectors import FIRST, WORDS

LATER_STAGES_KEEP = (
    "model.checkpoint", "model.vae", "method.", "embedding.name", "embedding.vectors", "embedding.init_words",
    "save.dir", "save.embedding_dir", "ema.", WORDS, FIRST,
)


def stages_of(settings: RunSettings) -> list[RunSettings]:
    """The settings of each stage: the run's own, then each entry of `stages` on top of the stage before it.

    A stage that says nothing of its name or seed gets the run's name with its number, and the next seed; previews and
    validation keep theirs. Raises `UserError` with every mistake.
    """
    problems = Problems()
    plain = to_plain(replace(settings, stages=()))
    found = [replace(settings, stages=())]
    for number, entry in enumerate(settings.stages, 2):
        where = f"stages.{number - 2}"
        if not isinstance(entry, Mapping):
            problems.add(
                f"{entry!r} is not a mapping of names to values", where=where, fix='as in {"data.resolution": 768}'
            )
            continue
        try:
            own = Layer("stage", _of_its_own(found[-1], settings))
            layers = stage_layers(found[-1], [Layer("run", plain), own, Layer(where, entry)])
            stage = resolve(RunSettings, layers).settings
        except UserError as error:
            problems.absorb(error, f"{where}.{{}}".format)
            continue
        _check_kept(found[-1], stage, where, problems)
        found.append(stage)
        plain = to_plain(stage)
    for number, stage in enumerate(found[:-1]):
        if stage.train.optimizer == SCHEDULE_FREE:
            problems.add(
                "schedule_free has no end at which a next stage could begin", fix="use adamw",
                where=f"stages.{number - 1}.train.optimizer" if number else "train.optimizer",
            )
            break  # what follows may have it from this one
    named = [_named(stage, number, settings) for number, stage in enumerate(found, 1)] if settings.stages else found
    _check_apart(named, problems)
    problems.raise_if_any()
    return named


def _of_its_own(before: RunSettings, whole: RunSettings) -> dict[str, Any]:
    """What a stage does not have from the one before it."""
    looks = {f"{name}.seed": whole.seed_of(getattr(whole, name)) for name in ("preview", "validation")}
    return {"train.seed": before.train.seed + 1, "save.name": whole.save.name} | looks


def _check_apart(stages: Sequence[RunSettings], problems: Problems) -> None:
    """No stage may write over the files of another."""
    seen: set[tuple[str, str]] = set()
    for number, stage in enumerate(stages):
        own = {(str(folder), stem) for _, folder, stem in chosen_places(stage)}
        if own & seen:
            problems.add("a stage before it writes files of this name", where=f"stages.{number - 1}.save.name",
                         fix="choose another name")  # fmt: skip
        seen |= own


def _check_kept(before: RunSettings, stage: RunSettings, where: str, problems: Problems) -> None:
    if stage.stages:
        problems.add("a stage cannot have stages", where=f"{where}.stages", fix="give them one after the other")
    for line in describe_changes(before, stage):
        path = line.partition(":")[0]
        if path.startswith(LATER_STAGES_KEEP):
            problems.add(
                f"it is the same in all stages ({line.partition(': ')[2]})", where=f"{where}.{path}",
                fix="take it out, or make two runs of it",
            )


def _named(stage: RunSettings, number: int, whole: RunSettings) -> RunSettings:
    """All but the last get their number behind the run's name, so that each stage's result stands for itself; the
    file of a word, which is called as the word is, stays in the stage's directory.
    """
    if number > len(whole.stages):
        return stage
    stage = replace(stage, save=replace(stage.save, embedding_dir=""))
    if stage.save.name != whole.save.name or not stage.data.concepts:
        return stage
    name = stage.save.name or stage.data.concepts[0].name
    return replace(stage, save=replace(stage.save, name=f"{name}-stage-{number}"))


class _Unheard:
    """Whether an event is news: stages mostly read the same pictures and would say everything again."""

    def __init__(self) -> None:
        self._heard: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> bool:
        said = (event.where, event.text) if isinstance(event, Notice) else None
        news = said not in self._heard
        if said:
            self._heard.add(said)
        return news


def plan_stages(
    settings: RunSettings, outputs: Path, device: str, token: CancelToken, *, anew: bool = True,
    studio: Studio | None = None, trained: Collection[str] = (),
) -> Generator[Event, None, list[Plan]]:  # fmt: skip
    """The plan of each stage, as `make_plan`: none holds out what one before it is trained on. Raises `UserError` with
    the mistakes of all.
    """
    problems, plans, unheard = Problems(), [], _Unheard()
    stages = stages_of(settings)
    by_share = any(stage.validation.fraction or stage.validation.count for stage in stages)
    for number, stage in enumerate(stages, 1):
        try:
            plan = make_plan(stage, outputs, device, token, anew=anew, studio=studio, trained=trained)
            plan = yield from sifted(plan, unheard)
            if by_share:
                trained = {*trained}.union(*hashes_of(plan.materials))
            plans.append(plan.behind((former, former.steps) for former in plans))
        except UserError as error:
            problems.absorb(error, str if number == 1 else f"stages.{number - 2}.{{}}".format)
    problems.raise_if_any()
    return plans


@dataclass(frozen=True)
class Stage:
    """One of several: its number from 1, its plan, its directory, how many steps the former ones have and it has.

    `state` is where the newest stage stands that was begun, None for the others.
    """

    number: int
    plan: Plan
    run: RunDir
    offset: int
    steps: int
    done: bool
    state: SavedState | None = None


def laid_out(plans: Sequence[Plan], run: RunDir) -> list[Stage]:
    """The stages of a run directory.

    One behind which another was begun is done, and has the steps that it took: pictures that came since then make its
    epochs no longer.
    """
    found: list[Stage] = []
    offset, newest = 0, max((n for n in range(1, len(plans) + 1) if stage_run(run, n).has_state()), default=0)
    for number, plan in enumerate(plans, 1):
        own, state = stage_run(run, number), None
        plan = plan.behind((stage.plan, stage.steps) for stage in found)
        ended = own.finished_steps()
        if number == newest:
            state = newest_state(own.states)
            plan = plan.after(state)
        steps = ended if number < newest else plan.steps
        found.append(Stage(number, plan, own, offset, steps, ended >= steps, state))
        offset += steps
    return found


def stage_run(run: RunDir, number: int) -> RunDir:
    """The directory of a stage."""
    return RunDir(run.path / f"stage-{number}")


def begun_stage(stages: Sequence[Stage]) -> Stage:
    """The one to go on with: the first that is not done, else the last."""
    return next((stage for stage in stages if not stage.done), stages[-1])


def run_stages(stages: Sequence[Stage], run: RunDir, token: CancelToken) -> Iterator[Event]:
    """Train every stage that is not done, or go on inside one; the events count the steps of all stages."""
    from lib_sdtrain.train.loop import logged, run_plan

    results: list[dict[str, Any]] = []
    total = sum(stage.steps for stage in stages)
    begun = begun_stage(stages)
    step = begun.offset + (begun.state.facts["step"] if begun.state else 0)
    yield Started(job="train", total=total, step=step, run_dir=str(run.path))
    before = stages[begun.number - 2] if begun.number > 1 else None
    earlier = before and (before.state or newest_state(before.run.states))
    for stage in stages[begun.number - 1 :]:
        yield Notice(text=f"stage {stage.number} of {len(stages)}: {stage.plan.settings.data.resolution} pixels, "
                          f"{stage.steps} steps")  # fmt: skip
        plan = replace(stage.plan, earlier=_digest(earlier))
        if stage.state:
            stage.run.write_config(plan.settings)
        else:
            stage.run.start(plan.settings)
        events = run_plan(plan, stage.run, token, stage.state, earlier, outputs=run.outputs)
        for event in logged(stage.run, replace(plan.settings, log=LogSettings()), events):
            shifted = seen_from_run(event, stage, total)
            if isinstance(event, Finished):
                results.append(event.result)
            elif shifted is not None:
                yield shifted
            if isinstance(event, Stopped):
                return
        earlier = newest_state(stage.run.states)
        gc.collect()  # a model refers to itself: its memory would still be taken while the next one is loaded
    yield Finished(result=whole_document(results, run, total))


def _digest(earlier: SavedState | None) -> str:
    """What a stage's file says of the weights that it began with."""
    if earlier is None:
        return ""
    return hashlib.sha256(f"{earlier.facts.get('earlier', '')}{earlier.facts['sha256']}".encode()).hexdigest()


def seen_from_run(event: Event, stage: Stage, total: int) -> Event | None:
    """An event of a stage as the whole run tells it; None for what only the stage tells."""
    if isinstance(event, Started):
        return None
    if isinstance(event, Step):
        left, mine = event.seconds_left, stage.steps - event.step
        left = left * (total - stage.offset - event.step) / mine if left is not None and mine else None
        return replace(event, step=event.step + stage.offset, total=total, seconds_left=left)
    if isinstance(event, Preview):
        return replace(event, step=event.step + stage.offset, file=f"{stage.run.path.name}/{event.file}")
    if isinstance(event, (Saved, Validation, Stopped)):
        return replace(event, step=event.step + stage.offset)
    return event


def whole_document(results: list[dict[str, Any]], run: RunDir, steps: int) -> dict[str, Any]:
    """The document of the last stage, with the steps and seconds of all that ran now."""
    seconds = sum(result["seconds"] for result in results)
    return {
        **results[-1], "run_dir": str(run.path), "steps": steps, "seconds": round(seconds, 3),
        "peak_memory_bytes": max(result["peak_memory_bytes"] for result in results),
    }
