"""Class pictures for prior preservation (Ruiz et al. 2023), made first by the starting model.

Kept and topped up, never remade: picture i of a folder has a seed of its own, so a folder that lost some
gets the same ones back.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

from lib_sdtrain.data.concepts import FILEWORDS
from lib_sdtrain.data.randomness import key
from lib_sdtrain.events import CancelToken, Event, Phase, Saved
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.sample.generate import generate
from lib_sdtrain.sample.images import Picture, save_png
from lib_sdtrain.sample.requests import to_api
from lib_sdtrain.settings.run import Concept
from lib_sdtrain.settings.run_outputs import WEBUI
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.room import with_room
from lib_sdtrain.train.shown import off_device
from lib_sdtrain.train.studio import Drawn

BATCH = 4
MAX_SEED = 2**32


def missing_slots(folder: Path, missing: int) -> list[int]:
    """Numbers of `missing` pictures to make in `folder`: the first that no file there has, readable or not."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return list(islice((slot for slot in count() if slot_name(slot) not in names), missing))


def slot_name(slot: int) -> str:
    """File name of made picture number `slot`."""
    return f"class-{slot:05d}.png"


def class_request(concept: Concept, plan: Plan, seed: int) -> SampleRequest:
    """DDIM, eta 0, 50 steps, CFG 10: the original DreamBooth code's regularisation pictures."""
    width, height = plan.target
    return SampleRequest(
        prompt=concept.class_prompt.replace(FILEWORDS, "").strip(), steps=50, sampler_name="DDIM", cfg_scale=10.0,
        seed=seed, width=width, height=height, clip_skip=plan.settings.model.clip_skip,
    )


def make_class_pictures(plan: Plan, model: LoadedModel, token: CancelToken) -> Iterator[Event]:
    """Fill every concept's folder, a few pictures at a time. Stopping keeps what is made."""
    concepts = zip(plan.settings.data.concepts, plan.class_folders, plan.missing_class, strict=True)
    for concept, folder, missing in concepts:
        if folder is None:
            continue
        slots = missing_slots(folder, missing)
        folder.mkdir(parents=True, exist_ok=True)
        for done, slot in enumerate(slots, 1):
            token.check()
            seed = key(plan.settings.train.seed, "class picture", slot) % MAX_SEED
            for picture in _drawn(plan, model, class_request(concept, plan, seed), token):
                yield from with_room(partial(save_png, picture, folder / slot_name(slot)), folder, token)
                yield Saved(file=str(folder / slot_name(slot)), kind="picture")
            yield Phase(name="making class pictures", done=done, total=len(slots), unit="pictures")


def _drawn(plan: Plan, model: LoadedModel, request: SampleRequest, token: CancelToken) -> Iterable[Picture | Drawn]:
    """The picture of a request by whom the settings say; the starting model is the checkpoint as it is."""
    if plan.settings.data.class_drawn_by != WEBUI:
        return generate(model, request, token)
    body = {**to_api(request), "override_settings": {"CLIP_stop_at_last_layers": request.clip_skip}}
    with off_device(model.parts.values()), plan.studio.showing(plan.checkpoint.path, None) as draw:
        return draw(body, token)
