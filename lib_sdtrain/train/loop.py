"""Training from beginning to end: prepare, train, save; every wish of the user is answered on the way."""
from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch

from lib_sdtrain.data.refreshing import Refresher
from lib_sdtrain.errors import Cancelled, JobFailed
from lib_sdtrain.events import CancelToken, Event, Finished, Notice, Phase, Started, Step, Stopped
from lib_sdtrain.model.space import check_space
from lib_sdtrain.places import check_writable
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import FULL
from lib_sdtrain.settings.run_outputs import DROP
from lib_sdtrain.train.allocator import give_freed_memory_back, memory_taken_ahead
from lib_sdtrain.train.boards import boards
from lib_sdtrain.train.class_images import make_class_pictures
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.encoding import UNCACHED, draws_to_encode, free_vae, latents_of, vae_needed
from lib_sdtrain.train.failing import take_step
from lib_sdtrain.train.forecast import checkpoint_bytes, disk_bytes, run_bytes
from lib_sdtrain.train.memory.ahead import held_from_the_start, zeroed_ahead, zeroed_from_the_start
from lib_sdtrain.train.outputs import Outputs
from lib_sdtrain.train.plan import Plan, rescan_class_pictures
from lib_sdtrain.train.previews import draw_previews
from lib_sdtrain.train.run_dir import RunDir, new_run_path
from lib_sdtrain.train.shown import off_device
from lib_sdtrain.train.splitting import REMEDY
from lib_sdtrain.train.stages import laid_out, plan_stages, run_stages
from lib_sdtrain.train.starting import load_for_training, pick_device
from lib_sdtrain.train.state import SavedState
from lib_sdtrain.train.studio import Studio
from lib_sdtrain.train.trainer import Trainer
from lib_sdtrain.train.trial import takes_first_step_first
from lib_sdtrain.train.validation import Validator
from lib_sdtrain.train.words import prepare_words
from lib_sdtrain.train.zeroed import ZeroedMemory, zeroed_memory

OUTPUTS = Path("outputs")
STALE_EMA = (
    "it carries a moving average (EMA), which is handed on as it is and not trained; `save.ema: drop` leaves it out"
)
NO_ROOM = "the device ran out of memory"
OUT_OF_MEMORY = "the device ran out of memory; from here on each batch is taken in"
OWN_EMA = "it carries a moving average (EMA), from which this run's average goes on"


def train(
    settings: RunSettings, token: CancelToken | None = None, run_dir: Path | None = None,
    outputs: Path = OUTPUTS, device: str | None = None, studio: Studio | None = None,
) -> Iterator[Event]:  # fmt: skip
    """Train from the beginning. Yields events, `Finished` or `Stopped` last. `studio` draws for the surroundings.

    Raises `UserError` with every mistake before anything is written, `JobFailed` when training cannot go on.
    """
    token = token or CancelToken()
    plans = yield from plan_stages(settings, outputs, device or pick_device(), token, studio=studio)
    run = RunDir(run_dir or new_run_path(outputs, plans[-1].name))
    check_disk(plans, run)
    run.start(settings)
    staged = plans[1:]
    yield from logged(
        run, settings, run_stages(laid_out(plans, run), run, token) if staged else run_plan(plans[0], run, token)
    )


def check_disk(plans: Sequence[Plan], run: RunDir) -> None:
    """Raise `UserError` when what the stages of the run will write cannot be written, or does not fit."""
    check_writable(run.path, "--run-dir")
    elsewhere = plans[0].settings.save.dir
    if elsewhere:
        check_space(Path(elsewhere).expanduser() / "x", sum(map(checkpoint_bytes, plans)))
        check_space(run.config, sum(map(run_bytes, plans)))
    else:
        check_space(run.config, sum(map(disk_bytes, plans)))


def logged(run: RunDir, settings: RunSettings, events: Iterator[Event]) -> Iterator[Event]:
    """Pass events on, append them to the run's log and tell the boards that are asked for."""
    run.mend_log()
    waiting: list[str] = []
    with boards(settings, run) as tell:
        for event in events:
            run.log(event, waiting)
            tell(event)
            yield event


def run_plan(
    plan: Plan, run: RunDir, token: CancelToken, state: SavedState | None = None, earlier: SavedState | None = None,
    outputs: Path | None = None,
) -> Iterator[Event]:
    """Prepare and train; `state` is where a resumed run goes on, `earlier` has the weights that a new one begins with.

    `outputs` is the folder of all runs, told from the run's where it is not given.
    """
    step = state.facts["step"] if state else 0
    yield Started(job="train", total=plan.steps, step=step, run_dir=str(run.path))
    try:
        zeros = None if state else zeroed_memory(zeroed_from_the_start(plan))
        others = zeros.addresses[: zeroed_ahead(plan)] if zeros else range(0)
        with memory_taken_ahead(held_from_the_start(plan), others):
            yield from _prepared(plan, run, token, state, earlier, outputs or run.outputs, zeros)
    except Cancelled:
        yield Stopped(step=step, saved=True)
    except torch.cuda.OutOfMemoryError as error:  # not in a batch that could be taken in pieces
        raise JobFailed(NO_ROOM, where="training", fix=REMEDY) from error


def _prepared(
    plan: Plan, run: RunDir, token: CancelToken, state: SavedState | None, earlier: SavedState | None, outputs: Path,
    zeros: ZeroedMemory | None,
) -> Iterator[Event]:
    """Load the model, make and encode what training reads, and train."""
    yield Phase(name="loading model", done=0, total=1)
    model = load_for_training(plan, vae_needed(plan))
    yield Phase(name="loading model", done=1, total=1)
    if plan.checkpoint.parts["ema"]:
        yield from _about_average(plan)
    yield from make_class_pictures(plan, model, token)
    plan = yield from rescan_class_pictures(plan, token)
    draws = draws_of(plan)
    latents = latents_of(plan, model, outputs)
    trainer = Trainer(plan, model, latents, draws, zeros)
    if state:
        trainer.restore(state.load())
    elif earlier:
        trainer.begin_from(earlier.load(("weights.", "average.")))
    files = Outputs(plan, run, trainer, saved_at=trainer.step if state else None)
    validator = Validator(plan, trainer)
    first, steps = trainer.samples, plan.steps - trainer.step

    def encoded(steps: int) -> Iterator[Event]:
        """What these steps see, and the validation, encoded; then the VAE is put away."""
        yield from latents.prepare(
            lambda: chain(draws_to_encode(draws, plan, first, steps), validator.draws()), token)
        free_vae(plan, model)

    def rest() -> Iterator[Event]:
        give_freed_memory_back()  # what the first step worked in would lie beside the VAE
        with off_device([model.unet]):  # what fits in pieces only may not fit beside it
            yield from encoded(steps)

    tried = not trainer.step and takes_first_step_first(plan, draws)
    cached = plan.settings.data.cache_latents != UNCACHED
    with off_device([model.unet] if cached else []):
        with off_device(model.text_encoders if cached else []):
            yield from encoded(1 if tried else steps)
        yield from prepare_words(trainer, outputs, (draw.prompt for draw in validator.draws()), token)
    give_freed_memory_back()
    own = draws_of(plan) if draws.refresh_every else draws  # a thread would use them
    refresher = Refresher(latents, own, plan.in_samples(plan.settings.train.length))
    with closing(files), closing(refresher):
        yield from _train(trainer, files, validator, refresher, token, rest() if tried else None)


def _about_average(plan: Plan) -> Iterator[Event]:
    settings = plan.settings
    whole = settings.method.kind == FULL
    if settings.ema.decay is not None and whole and settings.method.train_unet:
        yield Notice(text=OWN_EMA, where=plan.checkpoint.path.name)
    elif settings.ema.decay is None and whole and settings.save.ema != DROP:
        yield Notice(text=STALE_EMA, where=plan.checkpoint.path.name)


def _train(
    trainer: Trainer, outputs: Outputs, validator: Validator, refresher: Refresher, token: CancelToken,
    rest: Iterator[Event] | None,
) -> Iterator[Event]:
    """The steps, and what is due between them; `rest` is what is left to prepare when the first one is done."""
    plan = trainer.plan
    if trainer.step == 0:
        yield from draw_previews(trainer, outputs.run, token, only_missing=True)
        if validator.due(0):
            yield from validator.run(token, outputs.run.validated(0))
    elif trainer.step < plan.steps:
        yield from _left_over(trainer, outputs.run, validator, token)
    began, first = time.monotonic(), trainer.step
    while trainer.step < plan.steps and not token.stopping:
        before = trainer.pieces
        result = yield from take_step(trainer, outputs, refresher, token)
        if trainer.pieces != before:
            yield Notice(text=f"{OUT_OF_MEMORY} {trainer.pieces} pieces: slower, with the same result")
        done = trainer.step - first
        left = (time.monotonic() - began) / done * (plan.steps - trainer.step)
        yield Step(
            step=trainer.step, total=plan.steps, samples=trainer.samples, loss=result.loss,
            smoothed=result.smoothed, lr=result.lr, seconds_left=None if rest else left,
        )
        if rest and not token.stopping:
            began += yield from _timed(_prepared_behind(rest, token))
            rest = None
        yield from outputs.settle_state(token, wait=False)
        if validator.due(trainer.step) and not token.stopping:
            yield from validator.run(token)
        if trainer.step < plan.steps and not token.stopping:
            yield from _in_between(trainer, outputs, token)
    yield from _end(trainer, outputs, token, steps_per_second=(trainer.step - first) / (time.monotonic() - began))


def _timed(events: Iterator[Event]) -> Generator[Event, None, float]:
    """How many seconds they took."""
    began = time.monotonic()
    yield from events
    return time.monotonic() - began


def _prepared_behind(rest: Iterator[Event], token: CancelToken) -> Iterator[Event]:
    """Prepare what the steps behind the first one read. Who wants to stop and save has the first one; with a stop at
    once it is lost, and the run can begin anew with all that was prepared.
    """
    try:
        yield from rest
    except Cancelled:
        if token.stopping_now:
            raise


def _left_over(trainer: Trainer, run: RunDir, validator: Validator, token: CancelToken) -> Iterator[Event]:
    """What was due at the step of the saved state and a stop kept from being done."""
    if _due(trainer.step, trainer.plan.in_steps(trainer.settings.preview.every)):
        yield from draw_previews(trainer, run, token, only_missing=True)
    if validator.due(trainer.step):
        yield from validator.run(token, run.validated(trainer.step))


def _in_between(trainer: Trainer, outputs: Outputs, token: CancelToken) -> Iterator[Event]:
    """What is due after this step. The state comes last: a run killed before it goes back and makes the rest again."""
    settings, plan = trainer.settings, trainer.plan
    asked = token.take_save_request()
    if _due(trainer.step, plan.in_steps(settings.preview.every)):
        yield from draw_previews(trainer, outputs.run, token)
    if asked or _due(trainer.step, plan.in_steps(settings.save.every)):
        yield from outputs.save_checkpoint(token)
    if asked or _due(trainer.step, plan.in_steps(settings.save.state_every)):
        yield from outputs.save_state(token)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _end(trainer: Trainer, outputs: Outputs, token: CancelToken, steps_per_second: float) -> Iterator[Event]:
    if token.stopping_now:
        outputs.close()  # a state that was begun is completed
        yield Stopped(step=trainer.step, saved=outputs.run.has_state())
        return
    yield from outputs.save_state(token, wait=True)  # before the result: `resume` relies on it
    complete = trainer.step >= trainer.plan.steps
    yield from outputs.save_checkpoint(token, final=complete)
    if not complete:
        yield Stopped(step=trainer.step, saved=True, result=outputs.document(steps_per_second))
        return
    yield from draw_previews(trainer, outputs.run, token)
    yield Finished(result=outputs.document(steps_per_second))
