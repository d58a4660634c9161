"""Going on with a run exactly where its last state was saved, or with changes that are said aloud."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Notice
from lib_sdtrain.settings.fields import get_path
from lib_sdtrain.settings.layers import Layer, describe_changes, resolve, to_plain
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.loop import logged, run_plan
from lib_sdtrain.train.optimizers.registry import memory_of
from lib_sdtrain.train.outputs import beyond_hash, data_facts, parents_of
from lib_sdtrain.train.plan import Plan, make_plan
from lib_sdtrain.train.results import check_overwrites, written
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.stages import begun_stage, laid_out, plan_stages, run_stages, stage_run, stages_of
from lib_sdtrain.train.starting import pick_device
from lib_sdtrain.train.state import SavedState, newest_state
from lib_sdtrain.train.studio import Studio
from lib_sdtrain.train.token_vectors import FIRST, RATE, WORDS, stands_alone

FIXED = (
    "model.checkpoint", "model.vae", "method.kind", "embedding.name", "embedding.vectors",
    "method.train_unet", "method.train_text_encoder",
    "method.train_text_encoder_2", "method.rank", "method.alpha", "method.conv_rank", "method.conv_alpha",
    "method.block_weights", "train.optimizer", WORDS, FIRST, "validation.fraction", "validation.count",
    "stages",
)


BEYOND = "weights of pictures, masks, boxes, scores, other names of tags or embeddings that captions name"


def resume(
    run_dir: Path, changes: Mapping[str, Any] | None = None, token: CancelToken | None = None,
    device: str | None = None, studio: Studio | None = None,
) -> Iterator[Event]:  # fmt: skip
    """Go on with the run in `run_dir`; `changes` are settings by dotted path (a new length, say). `studio` is what the
    surroundings draw with.

    Raises `UserError` when there is nothing to go on from, or a change would make another run of it.
    """
    token, run, device = token or CancelToken(), RunDir(Path(run_dir)), device or pick_device()
    before = run.read_config()
    settings = resolve(
        RunSettings, [Layer("config.yaml", to_plain(before)), Layer("--set", changes or {})]
    ).settings
    _check_fixed(before, settings)
    if settings.stages:
        yield from _resume_stages(run, before, settings, device, token, studio)
        return
    _check_names(run, before, settings)  # another name is known to be taken before anything is read
    state = newest_state(run.states)
    plan = make_plan(settings, run.outputs, device, token, anew=False, studio=studio, trained=trained_on(state))
    plan = (yield from plan).after(state)
    _check_names(run, before, settings, complete=_has_all_steps(state, replace(plan, settings=before)))
    if state and state.facts["step"] >= plan.steps and run.finished_steps() >= plan.steps:
        raise UserError(
            f"all {plan.steps} steps are done", where=str(run.path), fix="lengthen it, for instance --set train.length="
            f"{plan.steps * 2}",
        )
    _check_memory(state, before, settings)
    _check_parents(state, plan)
    notices = [Notice(text=f"changed: {line}") for line in describe_changes(before, settings)]
    notices += [Notice(text=f"changed: {line}") for line in data_changes(state, plan)]
    run.write_config(settings)
    keep_earlier_result(plan, run, state)
    yield from logged(run, settings, chain(notices, run_plan(plan, run, token, state)))


def _resume_stages(
    run: RunDir, before: RunSettings, settings: RunSettings, device: str, token: CancelToken, studio: Studio | None
) -> Iterator[Event]:
    """Go on inside the stage that is not done, with the changes from there on. Raises `UserError` when all are done."""
    states = [newest_state(stage_run(run, number).states) for number in range(1, len(settings.stages) + 2)]
    trained = frozenset[str]().union(*map(trained_on, states))
    plans = yield from plan_stages(settings, run.outputs, device, token, anew=False, studio=studio, trained=trained)
    stages = laid_out(plans, run)
    if all(stage.done for stage in stages):
        raise UserError(f"all {sum(stage.steps for stage in stages)} steps are done", where=str(run.path),
                        fix="start a new run from its result")  # fmt: skip
    begun = begun_stage(stages)
    lasting = begun.state or next((stage.state for stage in stages if stage.state), None)
    _check_parents(lasting, begun.plan)
    _check_reached(before, settings, begun.number)
    _check_memory(begun.state, stages_of(before)[begun.number - 1], begun.plan.settings)
    for stage, old in zip(stages[begun.number - 1 :], stages_of(before)[begun.number - 1 :], strict=True):
        complete = _has_all_steps(stage.state, replace(stage.plan, settings=old))
        _check_names(stage.run, old, stage.plan.settings, complete)
    notices = [Notice(text=f"changed: {line}") for line in describe_changes(before, settings)]
    notices += [Notice(text=f"changed: {line}") for line in data_changes(begun.state, begun.plan)]
    run.write_config(settings)
    keep_earlier_result(begun.plan, begun.run, begun.state)
    yield from logged(run, settings, chain(notices, run_stages(stages, run, token)))


def _check_reached(before: RunSettings, settings: RunSettings, first: int) -> None:
    """Raise `UserError` for a change that a stage from number `first` on does not see, since it says that itself."""
    problems = Problems()
    paths = [line.partition(":")[0] for line in describe_changes(before, settings)]
    for number, (old, new) in enumerate(zip(stages_of(before), stages_of(settings), strict=True), 1):
        for path in paths if number >= first else ():
            if get_path(old, path) == get_path(new, path):
                problems.add(
                    f"stage {number} says it itself, and goes on as it began", where=path,
                    fix="leave it, or start a new run from the result of the stage before",
                )
    problems.raise_if_any()


def _check_fixed(before: RunSettings, after: RunSettings) -> None:
    problems = Problems()
    for line in describe_changes(before, after):
        path = line.partition(":")[0]
        if path in FIXED:
            problems.add(
                f"cannot change while a run goes on ({line.partition(': ')[2]})", where=path, fix="start a new run"
            )
    if stands_alone(before.train) != stands_alone(after.train):
        problems.add("it cannot be turned on or off while a run goes on", where=RATE, fix="start a new run")
    problems.raise_if_any()


def _check_memory(state: SavedState | None, before: RunSettings, settings: RunSettings) -> None:
    """Raise `UserError` where the optimizer's new arguments need what it has not kept up to now."""
    if state is None or not state.facts["step"] or before.train.optimizer_args == settings.train.optimizer_args:
        return
    if lacking := memory_of(settings.train) - memory_of(before.train):
        names = ", ".join(sorted(lacking))
        raise UserError(
            f"with these {settings.train.optimizer} goes on from {names}, which the run has not kept",
            where="train.optimizer_args", fix="leave them as they were, or start a new run",
        )


def _has_all_steps(state: SavedState | None, before: Plan) -> bool:
    return state is not None and state.facts["step"] >= before.steps


def _check_names(run: RunDir, before: RunSettings, settings: RunSettings, complete: bool = True) -> None:
    """Raise `UserError` when files of another run would be overwritten: of a new name, or of the same while this run
    had none. One that has `complete`d its steps with the settings `before` may have been killed over its result.
    """
    problems, mine = Problems(), run.result_files()
    if complete:
        mine |= {run.result_file(before, kind, suffix=form.suffix) for kind, form in written(before)}
    check_overwrites(settings, problems, mine)
    problems.raise_if_any()


def _check_parents(state: SavedState | None, plan: Plan) -> None:
    """A file may have been replaced under its name: a run that went on would be half of one and half of another."""
    kept, problems = state.facts.get("parents", {}) if state else {}, Problems()
    now = {role: parent.sha256 for role, parent in parents_of(plan).items()} if kept else {}
    for role, digest in now.items():
        if kept.get(role, digest) != digest:
            problems.add(
                "this is no longer the file that the run was begun with", where=f"model.{role}",
                fix="put the former file back, or start a new run",
            )
    problems.raise_if_any()


def trained_on(state: SavedState | None) -> frozenset[str]:
    """SHA-256 of the pictures that a state was trained on."""
    concepts = state.facts["data"] if state else ()
    return frozenset(sha256 for concept in concepts for sha256, _ in concept["pictures"])


def data_changes(state: SavedState | None, plan: Plan) -> list[str]:
    """How the pictures and captions differ from those the saved state was trained on."""
    if state is None:
        return []
    lines = []
    before = {entry["name"]: entry for entry in state.facts["data"]}
    for entry in data_facts(plan):
        old = before.pop(entry["name"], None)
        if old is None:
            lines.append(f"{entry['name']}: a new concept of {len(entry['pictures'])} pictures")
            continue
        for role in ("pictures", "class_pictures"):
            lines += _picture_changes(f"{entry['name']}, {role.replace('_', ' ')}", dict(old[role]), dict(entry[role]))
    lines += [f"{name}: the concept is gone" for name in before]
    return lines + [BEYOND] * (state.facts.get("beyond", beyond_hash(plan)) != beyond_hash(plan))


def _picture_changes(name: str, old: dict[str, str | None], new: dict[str, str | None]) -> list[str]:
    counts = {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "with another caption": sum(old[key] != new[key] for key in old.keys() & new.keys()),
    }
    said = [f"{count} {what}" for what, count in counts.items() if count]
    return [f"{name}: {', '.join(said)}"] if said else []


def keep_earlier_result(plan: Plan, run: RunDir, state: SavedState | None) -> None:
    """A run that was complete and is lengthened: its results get the step in their names, so that none is lost.

    A run that was cut off between its last step and its result only writes that result.
    """
    if state is None or state.facts["step"] >= plan.steps:
        return
    for kind, form in written(plan.settings):
        final = run.result_file(plan.settings, kind, suffix=form.suffix)
        kept = run.result_file(plan.settings, kind, state.facts["step"], form.suffix)
        for suffix in (".yaml", ".safetensors"):
            if final.exists() and final.with_suffix(suffix).exists() and not kept.with_suffix(suffix).exists():
                final.with_suffix(suffix).rename(kept.with_suffix(suffix))
