"""Kept crops that are replaced by others while training goes on."""
from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_sdtrain import train
from lib_sdtrain.data.concepts import Material
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.data.refreshing import Refresher
from lib_sdtrain.data.shards import ShardStore
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished
from lib_sdtrain.settings.run import Concept, DataSettings
from lib_sdtrain.train.resume import resume
from tests.data.folders import opened
from tests.train.runs import finish, run_settings

CROPS, EVERY, PICTURES = 2, 6, 3
DATA = DataSettings(resolution="64", random_crop=True, cache_crops=CROPS)


@pytest.fixture
def pictures(picture_folder) -> Path:
    return picture_folder("i", PICTURES, (700, 100))  # room for 384 crops that differ


def draws_of(folder: Path, data: DataSettings = DATA) -> Draws:
    _, found = opened(folder)
    return Draws([Material(Concept(instance_prompt="x"), found)], data, 0, refresh_every=EVERY)


def latents_of(data: DataSettings = DATA, store: ShardStore | None = None) -> Latents:
    return Latents(lambda pixels: torch.cat([pixels.mean((1, 2)).reshape(3, 1, 1)] * 2), data, "vae", store)


def crops_of(draws: Draws, first: int, last: int) -> dict[str, set[tuple[float, float]]]:
    found: dict[str, set[tuple[float, float]]] = {}
    for index in range(first, last):
        draw = draws.at(index)
        found.setdefault(draw.picture.path.name, set()).add(draw.crop)
    return found


def test_each_stretch_of_samples_has_its_own_crops_and_they_are_those_that_are_encoded(pictures):
    draws = draws_of(pictures)
    stretches = [crops_of(draws, number * EVERY, (number + 1) * EVERY) for number in range(4)]
    for name in stretches[0]:
        seen = [stretch[name] for stretch in stretches]
        assert all(len(crops) <= CROPS for crops in seen)
        assert sum(map(len, seen)) == len(set().union(*seen))
    for number, stretch in enumerate(stretches):
        forms = {(form.picture.path.name, form.crop) for form in draws.all_forms(number)}
        assert len(forms) == PICTURES * CROPS
        assert {(name, crop) for name, crops in stretch.items() for crop in crops} <= forms


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_the_next_crops_are_ready_and_the_former_ones_forgotten(pictures, tmp_path, where):
    store = ShardStore(tmp_path / "cache") if where == "disk" else None
    latents, draws = latents_of(replace(DATA, cache_latents=where), store), draws_of(pictures)
    refresher = Refresher(latents, draws_of(pictures), 3 * EVERY)

    def kept() -> list[int]:
        wait([refresher._work])
        return [sum(latents.has(latents.name(form)) for form in draws.all_forms(number)) for number in range(4)]

    every = PICTURES * CROPS
    refresher.follow(0)
    assert kept() == [every, every, 0, 0]
    refresher.follow(EVERY - 1)
    assert kept() == [every, every, 0, 0]
    refresher.follow(EVERY)
    assert kept() == [0, every, every, 0]
    refresher.follow(2 * EVERY)
    assert kept() == [0, 0, every, 0]  # the run ends before a fourth
    if store is not None:
        store.flush()
        held = len(list((tmp_path / "cache").glob("*.shard")))
        store.forget([latents.name(form) for form in draws.all_forms(2)])
        assert len(list((tmp_path / "cache").glob("*.shard"))) < held
    refresher.close()


def test_a_picture_that_has_changed_ends_the_training(pictures):
    refresher = Refresher(latents_of(), draws_of(pictures), 3 * EVERY)
    (pictures / "1.png").write_bytes(b"no picture")
    refresher.follow(0)
    wait([refresher._work])
    with pytest.raises(UserError, match="the picture changed while training"):
        refresher.follow(1)
    refresher.close()


def test_closing_ends_the_work_between_two_pictures(pictures):
    latents, reached, go_on = latents_of(), threading.Event(), threading.Event()
    encode = latents.encode
    latents.encode = lambda pixels: (reached.set(), go_on.wait(20), encode(pixels))[2]
    refresher = Refresher(latents, draws_of(pictures), 100 * EVERY)
    refresher.follow(0)
    assert reached.wait(20)
    closing = threading.Thread(target=refresher.close)
    closing.start()
    assert refresher._stopping.wait(20)
    go_on.set()
    closing.join(20)
    assert len(latents.memory) == 1


def test_nothing_is_encoded_while_pictures_are_drawn(pictures):
    latents = latents_of()
    refresher = Refresher(latents, draws_of(pictures), 3 * EVERY)
    with latents.undisturbed:
        refresher.follow(0)
        time.sleep(0.1)
        assert not latents.memory
    wait([refresher._work])
    assert len(latents.memory) == 2 * PICTURES * CROPS
    refresher.close()


def settings_of(checkpoint, folder, **changes):
    own = {"data__random_crop": True, "data__cache_crops": CROPS, "data__refresh_crops": "2", "train__length": 7}
    return run_settings(checkpoint, folder, **{**own, **changes})


def test_training_is_the_same_in_every_cache_and_after_a_stop(tiny_checkpoint, pictures, tmp_path):
    def trained(name: str, **changes: object) -> bytes:
        seen = finish(train(settings_of(tiny_checkpoint, pictures, **changes), run_dir=tmp_path / "runs" / name))
        assert isinstance(seen[-1], Finished), seen[-1]
        return Path(seen[-1].result["checkpoint"]).read_bytes()

    plain = trained("plain", data__cache_latents="none")
    assert trained("memory", data__cache_latents="memory") == trained("disk", data__cache_latents="disk") == plain
    assert trained("never", data__refresh_crops=None) != plain

    run, token = tmp_path / "stopped" / "run", CancelToken()
    finish(train(settings_of(tiny_checkpoint, pictures), token, run_dir=run), token, stop_at=3)
    assert Path(finish(resume(run))[-1].result["checkpoint"]).read_bytes() == plain


def test_only_kept_crops_can_be_refreshed(tiny_checkpoint, pictures, tmp_path):
    settings = settings_of(tiny_checkpoint, pictures, data__cache_crops=None, data__cache_latents="none")
    with pytest.raises(UserError, match="no kept crops to refresh"):
        list(train(settings, run_dir=tmp_path / "run"))


def test_what_another_run_has_forgotten_is_not_there(tmp_path):
    one, other = ShardStore(tmp_path), ShardStore(tmp_path)
    one.put("a", torch.ones(4))
    one.flush()
    assert torch.equal(other.get("a"), torch.ones(4))
    one.forget(["a"])
    assert other.get("a") is None
    assert list(tmp_path.glob("*.shard")) == []
