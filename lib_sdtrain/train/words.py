"""Before training: what text encoders that are not trained say of all captions, so that they can leave the device."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from lib_sdtrain.data.shards import ShardStore
from lib_sdtrain.events import CancelToken, Event, Notice, Phase
from lib_sdtrain.train.text_cache import KEPT, keeps_text, known_before, lets_go, text_folder, text_keys, wants_disk
from lib_sdtrain.train.trainer import Trainer

VARIED = "captions vary from sample to sample, so what the text encoder says of them is not kept on disk"
EVERY = 16


def prepare_words(trainer: Trainer, outputs: Path, more: Iterable[str], token: CancelToken) -> Iterator[Event]:
    """Encode all prompts of a run, and `more`, once, where they are always the same; then the encoders are put away,
    for good where they will not be asked again.

    In memory there is room for KEPT of them; where there are more, and not on disk, the encoders stay on the device.
    Stopping keeps what is done.
    """
    settings, prompts = trainer.settings, trainer.prompts
    if not keeps_text(settings) or all(prompts.trained):
        return
    words = trainer.draws.all_words()
    if words is None:
        if wants_disk(settings):
            yield Notice(text=VARIED, where="data.cache_text_embeddings")
        return
    if wants_disk(settings):
        store = ShardStore(text_folder(trainer.plan, outputs))
        yield from (_damaged(store.folder / file) for file in store.damaged)
        prompts.cache.use_disk(store, text_keys(trainer.plan, trainer.model.text_encoders, trainer.inversions))
    elif trainer.device.type == "cpu" and not known_before(trainer.plan, trainer.draws, _samples_left(trainer)):
        return  # they are kept as they come
    yield from _remembered(trainer, chain([""], words, more), token)


def _damaged(file: Path) -> Notice:
    return Notice(text="cached text embeddings are damaged and made again", where=str(file))


def _remembered(trainer: Trainer, words: Iterable[str], token: CancelToken) -> Iterator[Event]:
    cache, total = trainer.prompts.cache, trainer.plan.pictures
    try:
        for done, prompt in enumerate(words, 1):
            token.check()
            yield from (_damaged(cache.store.folder / file) for file in trainer.remember_words(prompt))
            if cache.store is None and cache.most() >= KEPT:
                return
            if done % EVERY == 0 or done == total:
                yield Phase(name="encoding captions", done=min(done, total), total=total, unit="captions")
    finally:
        cache.flush()
    trainer.prompts.put_away(for_good=lets_go(trainer.plan) and cache.most() < KEPT)


def _samples_left(trainer: Trainer) -> int:
    return trainer.plan.samples_a_step * (trainer.plan.steps - trainer.step)
