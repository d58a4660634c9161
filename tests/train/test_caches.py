"""Cached training: the same bits, nothing encoded twice, nothing loaded that is not needed."""
from pathlib import Path

import pytest
import torch

from lib_sdtrain import events, train
from lib_sdtrain.data import latents as latents_module
from lib_sdtrain.data.shards import ShardStore
from lib_sdtrain.events import CancelToken, Finished, Notice, Phase, Stopped
from lib_sdtrain.model import build, text
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.text import Encoded
from lib_sdtrain.settings.run import ModelSettings
from lib_sdtrain.train import text_cache
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.prompts import PromptEncoder
from lib_sdtrain.train.text_cache import TextCache
from lib_sdtrain.train.trainer import Trainer
from tests.train.runs import finish, of_kind, run_settings


@pytest.fixture
def decoded(monkeypatch):
    """Names of the pictures that were read for encoding."""
    found, load = [], latents_module.load_pixels
    monkeypatch.setattr(latents_module, "load_pixels", lambda *a: found.append(a[0].picture.path.name) or load(*a))
    return found


def result_of(seen):
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"]).read_bytes()


def test_half_precision_and_kept_crops_are_the_same_in_every_cache(tiny_checkpoint, picture_folder, tmp_path, decoded):
    files, counts = {}, {}
    folder = picture_folder("i", 3)
    for cache in ("none", "memory", "disk"):
        decoded.clear()
        settings = run_settings(
            tiny_checkpoint, folder, data__cache_latents=cache, data__latent_precision="fp16", data__random_crop=True,
            data__cache_crops=2, train__length=7,
        )
        files[cache] = result_of(finish(train(settings, run_dir=tmp_path / "runs" / cache)))
        counts[cache] = len(decoded)
    assert files["none"] == files["memory"] == files["disk"]
    assert counts == {"none": 7, "memory": 6, "disk": 6}


def test_only_what_changed_is_encoded_again(tiny_checkpoint, picture_folder, tmp_path, decoded):
    folder = picture_folder("i", 3)

    def run(name, **changes):
        decoded.clear()
        settings = run_settings(tiny_checkpoint, folder, data__cache_latents="disk", train__length=3, **changes)
        return finish(train(settings, run_dir=tmp_path / "runs" / name))

    run("a")
    assert sorted(decoded) == ["0.png", "1.png", "2.png"]
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes() + b"\0")
    run("b")
    assert decoded == ["1.png"]
    run("c", data__resolution="72")
    assert len(decoded) == 3
    run("d", train__seed=5)
    assert decoded == []


def test_the_vae_is_not_loaded_when_all_is_cached(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    parts, make = [], build.build_part
    monkeypatch.setattr(build, "build_part", lambda part, *a: parts.append(part) or make(part, *a))
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 4), data__cache_latents="disk", train__length=2, validation__fraction=0.5
    )
    first = result_of(finish(train(settings, run_dir=tmp_path / "runs" / "a")))
    assert build.VAE in parts
    parts.clear()
    assert result_of(finish(train(settings, run_dir=tmp_path / "runs" / "b"))) == first
    assert parts
    assert build.VAE not in parts


@pytest.mark.fault("a notice; they are encoded again")
def test_damaged_latents_are_named_and_made_again(tiny_checkpoint, picture_folder, tmp_path, decoded):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 2), data__cache_latents="disk", train__length=2)
    first = result_of(finish(train(settings, run_dir=tmp_path / "runs" / "a")))
    (shard,) = (tmp_path / "latents").glob("*.shard")
    content = bytearray(shard.read_bytes())
    content[5] ^= 255
    shard.write_bytes(content)
    decoded.clear()
    seen = finish(train(settings, run_dir=tmp_path / "runs" / "b"))
    assert result_of(seen) == first
    assert [notice.where for notice in of_kind(seen, Notice)] == [str(shard)]
    assert len(decoded) == 2


def test_stopping_while_encoding_keeps_what_is_done(tiny_checkpoint, picture_folder, tmp_path, decoded):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 40), data__cache_latents="disk", train__length=40)
    token, seen = CancelToken(), []
    for event in train(settings, token, run_dir=tmp_path / "runs" / "a"):
        seen.append(event)
        if isinstance(event, Phase) and event.name == "encoding pictures" and event.done == 3:
            token.stop_and_save()
    assert isinstance(seen[-1], Stopped)
    decoded.clear()
    events = train(settings, run_dir=tmp_path / "runs" / "b")
    next(event for event in events if isinstance(event, Phase) and event.name == "encoding pictures")
    assert "0.png" not in decoded


@pytest.fixture
def encoded(monkeypatch):
    """Chunks of text that were encoded."""
    found, encode = [], text.encode
    monkeypatch.setattr(text, "encode", lambda *a: found.extend(a[2].tolist()) or encode(*a))
    return found


@pytest.mark.parametrize("more", [{}, {"model__max_token_length": "150", "data__caption_dropout_rate": 0.3,
                                       "data__caption_dropout_mode": "split"}])
def test_text_embeddings_are_the_same_in_every_cache(tiny_checkpoint, picture_folder, tmp_path, encoded, more):
    folder = picture_folder("i", 3)
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"number {number}, " + "very, " * 40 * (number % 2))
    files, counts = {}, {}
    for name, cache in (("none", "none"), ("memory", "memory"), ("disk", "disk"), ("disk again", "disk")):
        encoded.clear()
        settings = run_settings(
            tiny_checkpoint, folder, data__cache_text_embeddings=cache, method__train_text_encoder=False,
            train__length=6, **more,
        )
        files[name] = result_of(finish(train(settings, run_dir=tmp_path / "runs" / name)))
        counts[name] = len(encoded)
    assert files["none"] == files["memory"] == files["disk"] == files["disk again"]
    assert counts["none"] >= 6
    assert counts["memory"] <= counts["disk"] < 9
    assert counts["disk again"] == 0


def test_another_clip_skip_finds_nothing_of_the_first(tiny_checkpoint, picture_folder, tmp_path, encoded):
    settings = {"data__cache_text_embeddings": "disk", "method__train_text_encoder": False, "train__length": 1}
    folder = picture_folder("i", 1)
    finish(train(run_settings(tiny_checkpoint, folder, **settings), run_dir=tmp_path / "runs" / "a"))
    encoded.clear()
    settings["model__clip_skip"] = 2
    finish(train(run_settings(tiny_checkpoint, folder, **settings), run_dir=tmp_path / "runs" / "b"))
    assert encoded


def test_damaged_text_embeddings_are_named_and_made_again(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 1), data__cache_text_embeddings="disk",
                            method__train_text_encoder=False, train__length=1)
    first = result_of(finish(train(settings, run_dir=tmp_path / "runs" / "a")))
    (shard,) = (tmp_path / "latents" / "text").glob("*.shard")
    content = bytearray(shard.read_bytes())
    content[100] ^= 255
    shard.write_bytes(content)
    seen = finish(train(settings, run_dir=tmp_path / "runs" / "b"))
    assert [Path(notice.where).name for notice in of_kind(seen, Notice) if "damaged" in notice.text] == [shard.name]
    assert result_of(seen) == first


def test_captions_that_vary_are_not_kept_on_disk(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 1), data__cache_text_embeddings="disk",
                            data__shuffle_caption=True, method__train_text_encoder=False, train__length=1)
    seen = finish(train(settings, run_dir=tmp_path / "runs" / "a"))
    assert any("vary" in notice.text for notice in of_kind(seen, Notice))
    assert not (tmp_path / "latents" / "text").exists()


def test_encoders_leave_the_device_and_come_back_for_a_moment(tiny_checkpoint):
    model = build.load_model(open_checkpoint(str(tiny_checkpoint)), "cpu", torch.float32)
    encoder, places = model.text_encoders[0], []
    encoder.to = lambda place, *more: places.append(str(place)) or encoder
    prompts = PromptEncoder(model, ModelSettings())
    before = prompts.encode(["a dog"]).context
    prompts.put_away()
    assert places == ["cpu"]
    assert torch.equal(prompts.encode(["a dog"]).context, before)
    assert places == ["cpu"]
    prompts.encode(["a cat"])
    assert places == ["cpu", "cpu", "cpu"]  # there, and away again
    with prompts.at_hand():
        assert len(places) == 4
    assert len(places) == 5


def test_encoders_that_are_let_go_say_only_what_they_have_said(tiny_checkpoint):
    model = build.load_model(open_checkpoint(str(tiny_checkpoint)), "cpu", torch.float32)
    prompts = PromptEncoder(model, ModelSettings())
    before = prompts.encode(["a dog"]).context
    prompts.put_away(for_good=True)
    assert all(weight.is_meta for weight in model.text_encoders[0].parameters())
    assert torch.equal(prompts.encode(["a dog"]).context, before)


def test_words_are_all_that_training_may_say(tiny_checkpoint, picture_folder, tmp_path):
    """Encoders that are let go could not say another."""
    folder = picture_folder("i", 3)
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"a dog, number {number}")
    settings = run_settings(
        tiny_checkpoint, folder, picture_folder("c", 3), data__caption_dropout_rate=0.4, data__flip_p=0.5,
        data__replace_words={"dog": "wolf"}, data__replace_words_from=10,
    )
    draws = draws_of(events.result_of(make_plan(settings, tmp_path, "cpu", CancelToken()), print))
    said = {draw.prompt for index in range(60) for draw in (draws.at(index), draws.class_at(index))}
    assert len(said) > 5
    assert said <= set(draws.all_words())


def test_the_pooled_output_that_is_lost_is_made_again(tmp_path):
    """It may lie in another file than the hidden state of the same chunk."""
    chunk, said = (1, 2), Encoded(torch.ones(1, 77, 4), torch.ones(1, 4))
    for lost in ("hidden", "pooled"):
        cache = TextCache([True])
        cache.use_disk(ShardStore(tmp_path / lost), ["key"])
        cache.put(0, chunk, said)
        cache.flush()
        again = TextCache([True])
        again.use_disk(cache.store, ["key"])
        assert torch.equal(again.get(0, chunk, torch.device("cpu")).pooled, said.pooled)
        cache.store.forget([cache._name(0, chunk, lost)])
        again._memory[0].clear()
        assert again.get(0, chunk, torch.device("cpu")) is None


def test_more_chunks_on_disk_than_in_memory_keep_the_encoders(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    """A file of theirs may be dropped by another run: they must be able to say it again."""
    monkeypatch.setattr(text_cache, "KEPT", 3)
    folder, seen, train_step = picture_folder("i", 3), [], Trainer.train_step
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"number {number}")

    def step(trainer):
        for file in trainer.prompts.cache.store.folder.glob("*.shard"):
            trainer.prompts.cache.store.drop(file.name)
        seen.append(next(trainer.model.text_encoders[0].parameters()).is_meta)
        return train_step(trainer)

    monkeypatch.setattr(Trainer, "train_step", step)
    settings = run_settings(tiny_checkpoint, folder, method__train_text_encoder=False, train__length=6,
                            data__cache_text_embeddings="disk")
    result_of_run = finish(train(settings, run_dir=tmp_path / "runs" / "a"))
    assert isinstance(result_of_run[-1], Finished)
    assert seen == [False] * 6


@pytest.mark.parametrize(
    ("more", "gone"),
    [
        ({"train__length": 4}, True),  # three captions and the empty one
        ({"train__length": 3}, False),  # it would say captions that the run does not see
        ({"train__length": 4, "preview__prompts": ["a dog"]}, False),
        ({"train__length": 4, "data__shuffle_caption": True}, False),
        ({"train__length": 4, "data__cache_text_embeddings": "none"}, False),
    ],
)
def test_frozen_encoders_leave_main_memory_where_nothing_asks_them_again(
    tiny_checkpoint, picture_folder, tmp_path, monkeypatch, more, gone
):
    folder, seen, train_step = picture_folder("i", 3), [], Trainer.train_step
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"number {number}")

    def step(trainer):
        seen.append(next(trainer.model.text_encoders[0].parameters()).is_meta)
        return train_step(trainer)

    monkeypatch.setattr(Trainer, "train_step", step)
    settings = run_settings(tiny_checkpoint, folder, method__train_text_encoder=False, **more)
    finish(train(settings, run_dir=tmp_path / "runs" / "a"))
    assert set(seen) == {gone}
