"""Pictures drawn while training, by the sampler that gives the WebUI's own pictures, from fixed seeds."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lib_sdtrain.errors import Cancelled
from lib_sdtrain.events import CancelToken, Event, Phase, Preview
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.images import save_png
from lib_sdtrain.sample.infotext import Facts
from lib_sdtrain.train.preview_requests import preview_requests
from lib_sdtrain.train.room import with_room
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.trainer import Trainer


def draw_previews(trainer: Trainer, run: RunDir, token: CancelToken, only_missing: bool = False) -> Iterator[Event]:
    """Draw every preview with the weights as they are now, or those of this step that are not there yet.

    Stops early, and quietly, when the user wants to stop.
    """
    requests = preview_requests(trainer.settings, trainer.plan.target)
    if not requests:
        return
    run.samples.mkdir(parents=True, exist_ok=True)
    facts = Facts(model=f"{trainer.plan.name}-{trainer.step:06d}")
    home = next(trainer.model.vae.parameters()).device
    trainer.model.vae.to(trainer.device)
    index = 0
    try:
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
    finally:
        trainer.model.vae.to(home)


def _file(run: RunDir, step: int, index: int) -> Path:
    return run.samples / f"step-{step:06d}-{index:02d}.png"
