"""Pictures drawn while training, by the sampler that gives the WebUI's own pictures, from fixed seeds."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from lib_sdtrain.errors import Cancelled, JobFailed, Problem, UserError
from lib_sdtrain.events import CancelToken, Event, Notice, Phase, Preview
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.images import save_png
from lib_sdtrain.sample.infotext import Facts
from lib_sdtrain.train.preview_requests import preview_bodies, preview_requests
from lib_sdtrain.train.room import with_room
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.shown import off_device, shown_weights
from lib_sdtrain.train.studio import Body
from lib_sdtrain.train.trainer import Trainer

FAILURES = (UserError, JobFailed, torch.cuda.OutOfMemoryError)
NO_MEMORY = Problem(
    "the device ran out of memory", fix="smaller pictures, or fewer at a time, take less (preview.prompts)"
)


def draw_previews(trainer: Trainer, run: RunDir, token: CancelToken, only_missing: bool = False) -> Iterator[Event]:
    """Draw every preview with the weights as they are now, or those of this step that are not there yet.

    Stops early, and quietly, when the user wants to stop. Meanwhile nothing is encoded: drawing moves the VAE, and
    tiling changes it.
    """
    bodies = preview_bodies(trainer.settings, trainer.plan.target)
    with trainer.latents.undisturbed:
        if bodies:
            yield from _draw_elsewhere(trainer, run, token, list(bodies.values()), only_missing)
        else:
            yield from _draw(trainer, run, token, only_missing)


def _draw(trainer: Trainer, run: RunDir, token: CancelToken, only_missing: bool) -> Iterator[Event]:
    requests = preview_requests(trainer.settings, trainer.plan.target)
    if not requests:
        return
    run.samples.mkdir(parents=True, exist_ok=True)
    facts = Facts(model=f"{trainer.plan.name}-{trainer.step:06d}")
    home = next(trainer.model.vae.parameters()).device
    index, problems = 0, []
    try:
        trainer.model.vae.to(trainer.device)
        for done, request in enumerate(requests, 1):
            count = request.batch_size * request.n_iter
            if only_missing and all(_file(run, trainer.step, index + more).exists() for more in range(count)):
                index += count
                continue
            with trainer.shown_weights(), trainer.prompts.at_hand():
                around = Surroundings(facts, embeddings=trainer.inversions.shown())
                pictures = list(generate(trainer.model, request, token, surroundings=around))
            for picture in pictures:
                path = _file(run, trainer.step, index)
                yield from with_room(partial(save_png, picture, path), run.samples, token)
                yield Preview(step=trainer.step, file=str(path.relative_to(run.path)), index=index,
                              infotext=picture.infotext)
                index += 1
            yield Phase(name="drawing previews", done=done, total=len(requests), unit="previews")
    except Cancelled:
        return  # the loop sees the same wish and saves
    except FAILURES as error:
        problems = _forgiven(error, trainer.step)
    finally:
        trainer.model.vae.to(home)
    yield from _without(trainer.step, problems)


def _draw_elsewhere(
    trainer: Trainer, run: RunDir, token: CancelToken, bodies: Sequence[Body], only_missing: bool
) -> Iterator[Event]:  # fmt: skip
    """The previews that the surroundings' own program draws, all of a step at once.

    Nothing is yielded while its model shows other weights than its own: whoever takes the events may not come back.
    """
    counts = [max(1, int(body.get("batch_size") or 1)) * max(1, int(body.get("n_iter") or 1)) for body in bodies]
    files = [_file(run, trainer.step, index) for index in range(sum(counts))]
    if only_missing and all(file.exists() for file in files):
        return
    run.samples.mkdir(parents=True, exist_ok=True)
    yield Phase(name="drawing previews", done=0, total=len(bodies), unit="previews")
    weights = shown_weights(trainer, f"{trainer.plan.name}-{trainer.step:06d}")
    problems: list[Problem] = []
    with off_device(trainer.model.parts.values()):
        try:
            with trainer.plan.studio.showing(trainer.plan.checkpoint.path, weights) as draw:
                drawn = [picture for body in bodies for picture in draw(body, token)]
        except Cancelled:
            return
        except FAILURES as error:
            problems = _forgiven(error, trainer.step)
    if problems:
        yield from _without(trainer.step, problems)
        return
    for index, picture in enumerate(drawn):
        path = _file(run, trainer.step, index)
        yield from with_room(partial(save_png, picture, path), run.samples, token)
        yield Preview(step=trainer.step, file=str(path.relative_to(run.path)), index=index, infotext=picture.infotext)
    yield Phase(name="drawing previews", done=len(bodies), total=len(bodies), unit="previews")


def _forgiven(error: Exception, step: int) -> list[Problem]:
    """What kept previews from being drawn (another checkpoint is loaded, say): no reason to end a training of hours.

    Raises the error where nothing is lost yet, unless it is memory that ran out: training may fit all the same.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return [NO_MEMORY]
    if isinstance(error, JobFailed) and step == 0:
        raise error
    return error.problems if isinstance(error, UserError) else [error.problem]


def _without(step: int, problems: Sequence[Problem]) -> Iterator[Event]:
    yield from (Notice(text=f"no previews at step {step}: {problem}") for problem in problems)


def _file(run: RunDir, step: int, index: int) -> Path:
    return run.samples / f"step-{step:06d}-{index:02d}.png"
