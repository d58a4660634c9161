"""The `sample` command's engine: requests in, numbered pictures out."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Saved, Started
from lib_sdtrain.model.checkpoint import find_checkpoint, open_checkpoint
from lib_sdtrain.model.vae_file import open_vae
from lib_sdtrain.places import exists, is_file
from lib_sdtrain.sample.check import check_request
from lib_sdtrain.sample.files import folders
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.images import Picture, save_png
from lib_sdtrain.sample.models import Models
from lib_sdtrain.sample.networks import check_networks
from lib_sdtrain.sample.streamed import streamed
from lib_sdtrain.settings.sample import SampleRequest, SampleSettings

Tell = Callable[[Event], None]


def sample(settings: SampleSettings, token: CancelToken | None = None) -> Iterator[Event]:
    """Draw every request in order into `settings.out`: 0000.png, 0001.png ..., and .npy beside them if wanted.

    Raises `UserError` with all mistakes before anything is loaded or written.
    """
    token = token or CancelToken()
    models = check(settings)
    yield Started(job="sample", total=sum(request.count for request in settings.requests))
    yield from streamed(lambda tell: _draw(settings, models, token, tell), token)


def check(settings: SampleSettings) -> Models:
    """Everything that can be known to be wrong, at once. Raises `UserError`."""
    problems, places = Problems(), folders(settings)
    if not settings.out:
        problems.add("a folder is needed", where="out", fix="say where the pictures go")
    if not settings.requests:
        problems.add("there is nothing to draw", where="requests", fix="give a prompt, a request or an infotext")
    if not exists(find_checkpoint(settings.checkpoint)):
        problems.add(f"no such file: {settings.checkpoint}", where="checkpoint", fix="check the path")
        problems.raise_if_any()
    models = Models(settings, places)
    for number, request in enumerate(settings.requests, 1):
        try:
            path, vae = models.files(request.options)
            family = open_checkpoint(path).family
            check_request(request, family)
            check_networks(request, places.lora)
            if vae is not None and not is_file(vae):
                raise UserError(f"no such file: {vae}", where="vae", fix="check the path")
            if vae is not None:
                open_vae(vae, family.vae).file.close()
        except UserError as error:
            problems.absorb(error, str if len(settings.requests) == 1 else f"request {number}: {{}}".format)
    problems.raise_if_any()
    return models


def _draw(settings: SampleSettings, models: Models, token: CancelToken, tell: Tell) -> None:
    start, out = time.monotonic(), Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    written: list[dict[str, Any]] = []
    for request in settings.requests:
        token.check()
        for picture in _pictures(settings, models, request, token, tell, len(written)):
            path = _write(picture, out, len(written), settings.save_latents)
            written.append({"file": str(path), "seed": picture.seed, "infotext": picture.infotext})
            tell(Saved(file=str(path), kind="picture"))
    tell(Finished(result={"images": written, "seconds": round(time.monotonic() - start, 3)}))


def _pictures(
    settings: SampleSettings, models: Models, request: SampleRequest, token: CancelToken, tell: Tell, number: int
) -> Iterator[Picture]:
    """The pictures of a request. Only here is its model held: the next request's is loaded when this one is gone."""
    model, facts = models.lend(request.options)
    around = Surroundings(
        facts, models.folders.lora, models.folders.embeddings, settings.vae_tiling, models.encodings, tell,
    )
    yield from generate(model, request, token, _progress(tell, number), around)


def _progress(tell: Tell, number: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        tell(Phase(name=f"sampling picture {number + 1}", done=done, total=total, unit="steps"))
    return report


def _write(picture: Picture, out: Path, number: int, latents: bool) -> Path:
    path = out / f"{number:04d}.png"
    save_png(picture, path)
    if latents:
        np.save(path.with_suffix(".npy"), picture.latents.numpy())
    return path
