"""Steps that fail: what was there before one is saved, where its weights are as they were."""
from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from lib_sdtrain.data.refreshing import Refresher
from lib_sdtrain.errors import JobFailed, Problem, UserError
from lib_sdtrain.events import CancelToken, Event, Notice
from lib_sdtrain.train.outputs import Outputs
from lib_sdtrain.train.soundness import broken_parts
from lib_sdtrain.train.trainer import StepResult, Trainer


def take_step(
    trainer: Trainer, outputs: Outputs, refresher: Refresher, token: CancelToken
) -> Generator[Event, None, StepResult]:
    """A step. One that fails raises the same error when what was there before it is saved; its remedy says so."""
    try:
        refresher.follow(trainer.samples)
        return trainer.train_step()
    except UserError as error:  # a picture that is gone, say
        *others, last = error.problems
        raise UserError([*others, (yield from _saved(last, trainer, outputs, token))]) from error
    except JobFailed as error:
        problem = yield from _saved(error.problem, trainer, outputs, token)
        raise JobFailed(problem.what, problem.where, problem.fix) from error


def _saved(
    problem: Problem, trainer: Trainer, outputs: Outputs, token: CancelToken
) -> Generator[Event, None, Problem]:
    """The problem with what there is to go on from; the state before the step is saved if it can be.

    There is nothing to lose before the first step.
    """
    kept = "the last saved state is good" if outputs.run.has_state() else "no state had been saved yet"
    if trainer.step and not trainer.torn and not broken_parts(trainer.parts):
        yield Notice(text=f"{problem.what}: the state before that step is being saved", where=problem.where)
        try:
            yield from outputs.save_state(token, wait=True)
            kept = "the state before that step is saved"
        except (OSError, UserError, JobFailed) as failed:
            kept = f"the state before that step could not be saved ({failed}); {kept}"
    return replace(problem, fix=f"{problem.fix}; {kept}" if problem.fix else kept)
