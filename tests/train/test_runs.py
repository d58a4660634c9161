"""Whole runs: reproducible, resumable bit for bit, faithful to the parent's file, honest about what they leave."""
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lib_sdtrain import train
from lib_sdtrain.data import latents as latents_module
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Notice, Phase, Preview, Saved, Step, Stopped
from lib_sdtrain.train.class_images import missing_slots
from lib_sdtrain.train.resume import resume
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind, run_settings


@pytest.fixture
def folders(picture_folder):
    return picture_folder("i", 3), picture_folder("c", 3)


def result_of(seen):
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"]).read_bytes()


def test_the_same_settings_give_the_same_file(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(tiny_checkpoint, *folders, data__flip_p=0.5, train__batch_size=2)
    files = [result_of(finish(train(settings, run_dir=tmp_path / name))) for name in ("a", "b")]
    assert files[0] == files[1]
    other = run_settings(tiny_checkpoint, *folders, data__flip_p=0.5, train__batch_size=2, train__seed=1)
    assert result_of(finish(train(other, run_dir=tmp_path / "c"))) != files[0]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_stopped_run_goes_on_bit_for_bit(tiny_checkpoint, folders, tmp_path, schedule):
    settings = run_settings(
        tiny_checkpoint, *folders, train__length=6, train__lr_scheduler=schedule, train__gradient_accumulation_steps=2,
        data__caption_dropout_rate=0.3, train__text_encoder_lr=1e-4,
    )
    straight = result_of(finish(train(settings, run_dir=tmp_path / "straight")))
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    assert seen[-1].saved
    assert seen[-1].step == 2
    token = CancelToken()
    finish(resume(tmp_path / "cut", token=token), token, stop_at=3)
    assert result_of(finish(resume(tmp_path / "cut"))) == straight


def test_a_lengthened_run_equals_a_long_one_and_keeps_the_short_result(tiny_checkpoint, folders, tmp_path):
    long = run_settings(tiny_checkpoint, *folders, train__length=4)
    short = run_settings(tiny_checkpoint, *folders, train__length=2)
    expected = result_of(finish(train(long, run_dir=tmp_path / "long")))
    first = result_of(finish(train(short, run_dir=tmp_path / "short")))
    seen = finish(resume(tmp_path / "short", {"train.length": 4}))
    assert result_of(seen) == expected
    assert "changed: train.length: 2 -> 4" in [notice.text for notice in of_kind(seen, Notice)]
    assert (tmp_path / "short" / "checkpoints" / "sks-000002.safetensors").read_bytes() == first
    assert (tmp_path / "short" / "checkpoints" / "sks-000002.yaml").is_file()


def test_only_trained_parts_differ_from_the_parent(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(tiny_checkpoint, *folders, method__train_text_encoder=False)
    result_of(finish(train(settings, run_dir=tmp_path / "run")))
    child = tmp_path / "run" / "checkpoints" / "sks.safetensors"
    with safe_open(tiny_checkpoint, "pt") as old, safe_open(child, "pt") as new:
        assert set(old.keys()) == set(new.keys())
        changed = set()
        for key in old.keys():  # noqa: SIM118 - not a dict
            before, after = old.get_tensor(key), new.get_tensor(key)
            assert (before.shape, before.dtype) == (after.shape, after.dtype)
            assert torch.isfinite(after.float()).all()
            if not torch.equal(before, after):
                changed.add(key.partition(".")[0])
        assert changed == {"model"}
        about = json.loads(new.metadata()["sdtrain"])
    assert about["kind"] == "train"
    assert str(tmp_path) not in json.dumps(about)
    assert child.with_suffix(".yaml").read_text() == tiny_checkpoint.with_suffix(".yaml").read_text()


def test_old_text_encoder_names_and_unknown_tensors_survive(tmp_path, folders):
    from safetensors.torch import load_file, save_file

    source = write_tiny(tmp_path / "new.safetensors", dtype=torch.float32)
    tensors = {"model_ema.decay": torch.tensor(0.9999), "somebody.else": torch.arange(3)}
    for key, value in load_file(source).items():
        if "position_ids" not in key:
            tensors[key.replace("transformer.text_model.", "transformer.")] = value
    save_file(tensors, tmp_path / "old.safetensors")
    source.with_suffix(".yaml").rename(tmp_path / "old.yaml")
    finish(train(run_settings(tmp_path / "old.safetensors", folders[0]), run_dir=tmp_path / "run"))
    child = load_file(tmp_path / "run" / "checkpoints" / "sks.safetensors")
    assert child.keys() == tensors.keys()
    for key in ("model_ema.decay", "somebody.else", "first_stage_model.encoder.conv_in.weight"):
        assert torch.equal(child[key], tensors[key])
    trained = "cond_stage_model.transformer.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(child[trained], tensors[trained])


def test_a_vae_of_its_own_encodes_the_pictures(tiny_checkpoint, folders, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors, other = load_file(tiny_checkpoint), load_file(write_tiny(tmp_path / "other.safetensors", seed=1))
    prefix = "first_stage_model."
    vae = {key: value for key, value in other.items() if key.startswith(prefix)}
    save_file({key.removeprefix(prefix): value for key, value in vae.items()}, tmp_path / "own.vae.safetensors")
    save_file(tensors | vae, tmp_path / "baked.safetensors")
    (tmp_path / "baked.yaml").write_bytes(tiny_checkpoint.with_suffix(".yaml").read_bytes())
    beside = run_settings(tiny_checkpoint, folders[0], model__vae=str(tmp_path / "own.vae.safetensors"))
    result_of(finish(train(beside, run_dir=tmp_path / "a")))
    result_of(finish(train(run_settings(tmp_path / "baked.safetensors", folders[0]), run_dir=tmp_path / "b")))
    one, two = (load_file(tmp_path / name / "checkpoints" / "sks.safetensors") for name in ("a", "b"))
    for key, value in one.items():
        assert torch.equal(value, tensors[key] if key.startswith(prefix) else two[key])


def test_class_pictures_are_made_kept_and_topped_up(tiny_checkpoint, picture_folder, tmp_path):
    instance, made = picture_folder("i", 2), tmp_path / "class"
    settings = run_settings(tiny_checkpoint, instance, made, train__length=1)
    seen = finish(train(settings, run_dir=tmp_path / "a"))
    files = sorted(made.iterdir())
    assert [path.name for path in files] == ["class-00000.png", "class-00001.png", "class-00002.png"]
    before = {path.name: path.read_bytes() for path in files}
    with Image.open(files[0]) as image:
        assert image.size == (64, 64)
        assert image.info["parameters"].startswith("a photo of a dog\nSteps: 50, Sampler: DDIM")
        assert "CFG scale: 10" in image.info["parameters"]
    files[1].unlink()
    files[0].write_bytes(b"")  # a broken copy is none, and stays as it is
    assert missing_slots(made, 2) == [1, 3]
    finish(train(settings, run_dir=tmp_path / "broken"))
    assert {path.name: path.read_bytes() for path in made.iterdir() if path.name != "class-00003.png"} == {
        **before, files[0].name: b""}
    files[0].write_bytes(before[files[0].name])
    for number in (1, 3):
        (made / f"class-0000{number}.png").unlink()
    assert missing_slots(made, 1) == [1]
    finish(train(settings, run_dir=tmp_path / "b"))
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert {"making class pictures"} <= {phase.name for phase in of_kind(seen, Phase)}


def test_stopping_while_class_pictures_are_made_keeps_them_and_can_go_on(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 2), tmp_path / "class", train__length=1)
    token, seen = CancelToken(), []
    for event in train(settings, token, run_dir=tmp_path / "run"):
        seen.append(event)
        if isinstance(event, Saved) and event.kind == "picture":
            token.stop_and_save()
    assert isinstance(seen[-1], Stopped)
    assert len(list((tmp_path / "class").iterdir())) == 1
    assert isinstance(finish(resume(tmp_path / "run"))[-1], Finished)


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_cached_and_uncached_training_are_the_same(tiny_checkpoint, folders, tmp_path, cache, monkeypatch):
    decoded = []
    load = latents_module.load_pixels
    monkeypatch.setattr(latents_module, "load_pixels", lambda *a: decoded.append(a[0].picture.path) or load(*a))
    base = run_settings(tiny_checkpoint, *folders, data__cache_latents="memory", data__flip_p=0.5, train__length=7)
    expected = result_of(finish(train(base, run_dir=tmp_path / "runs" / "base")))
    once = len(decoded)
    settings = run_settings(tiny_checkpoint, *folders, data__cache_latents=cache, data__flip_p=0.5, train__length=7)
    assert result_of(finish(train(settings, run_dir=tmp_path / "runs" / "a"))) == expected
    if cache == "disk":
        decoded.clear()
        assert result_of(finish(train(settings, run_dir=tmp_path / "runs" / "b"))) == expected
        assert decoded == []
    assert once == 12  # six pictures, plain and mirrored


def test_previews_come_at_the_beginning_in_between_and_at_the_end(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(
        tiny_checkpoint, folders[0], train__length=4, preview__every=2,
        preview__prompts=["a dog", {"prompt": "a cat", "steps": 2, "sampler_name": "Euler", "seed": 7}],
    )
    seen = finish(train(settings, run_dir=tmp_path / "run"))
    previews = of_kind(seen, Preview)
    assert [(p.step, p.index) for p in previews] == [(s, i) for s in (0, 2, 4) for i in (0, 1)]
    with Image.open(tmp_path / "run" / previews[3].file) as image:
        assert "a cat\nSteps: 2, Sampler: Euler," in image.info["parameters"]
        assert "Seed: 7" in image.info["parameters"]
    without = run_settings(tiny_checkpoint, folders[0], train__length=4)
    assert result_of(seen) == result_of(finish(train(without, run_dir=tmp_path / "plain")))


def test_save_and_go_on_saves_once_and_goes_on(tiny_checkpoint, folders, tmp_path):
    token, seen = CancelToken(), []
    for event in train(run_settings(tiny_checkpoint, folders[0]), token, run_dir=tmp_path / "run"):
        seen.append(event)
        if isinstance(event, Step) and event.step == 2:
            token.save_and_go_on()
    files = [Path(saved.file).name for saved in of_kind(seen, Saved) if saved.kind == "checkpoint"]
    assert files == ["sks-000002.safetensors", "sks.safetensors"]


def test_half_precision_computes_the_same_losses_to_its_own_accuracy(tiny_checkpoint, folders, tmp_path):
    runs = {}
    for kind in ("no", "bf16"):
        settings = run_settings(
            tiny_checkpoint, *folders, train__mixed_precision=kind, train__learning_rate=1e-5,
            train__gradient_checkpointing=kind == "bf16",
        )
        runs[kind] = of_kind(finish(train(settings, run_dir=tmp_path / kind)), Step)
    full, half = ([step.loss for step in runs[kind]] for kind in ("no", "bf16"))
    assert half == pytest.approx(full, rel=0.02)
    assert half != full


def test_fp16_without_cuda_is_refused(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(tiny_checkpoint, *folders, train__mixed_precision="fp16")
    with pytest.raises(UserError, match=r"train\.mixed_precision: fp16 training needs a CUDA device"):
        finish(train(settings, run_dir=tmp_path / "run", device="cpu"))


@pytest.mark.fault("Stop now ends at once; the last saved state stays")
def test_stop_now_writes_nothing_more(tiny_checkpoint, folders, tmp_path):
    token, seen = CancelToken(), []
    for event in train(run_settings(tiny_checkpoint, folders[0]), token, run_dir=tmp_path / "run"):
        seen.append(event)
        if isinstance(event, Step):
            token.stop_now()
    assert isinstance(seen[-1], Stopped)
    assert not seen[-1].saved
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_resuming_says_how_pictures_and_captions_changed(tiny_checkpoint, folders, tmp_path):
    instance = folders[0]
    finish(train(run_settings(tiny_checkpoint, instance, train__length=1), run_dir=tmp_path / "run"))
    (instance / "0.txt").write_text("a photo of sks dog on grass")
    (instance / "1.png").unlink()
    seen = finish(resume(tmp_path / "run", {"train.length": 2}))
    assert "changed: sks, pictures: 1 removed, 1 with another caption" in [n.text for n in of_kind(seen, Notice)]


@pytest.mark.fault("which settings cannot change while a run goes on")
def test_what_a_run_is_cannot_change_while_it_goes_on(tiny_checkpoint, folders, tmp_path):
    finish(train(run_settings(tiny_checkpoint, folders[0], train__length=1), run_dir=tmp_path / "run"))
    with pytest.raises(UserError, match=r"method\.train_text_encoder: cannot change"):
        finish(resume(tmp_path / "run", {"method.train_text_encoder": False}))
    with pytest.raises(UserError, match="all 1 steps are done"):
        finish(resume(tmp_path / "run"))
    with pytest.raises(UserError, match="already holds a run"):
        finish(train(run_settings(tiny_checkpoint, folders[0]), run_dir=tmp_path / "run"))


def test_the_log_tells_the_run_as_json_lines(tiny_checkpoint, folders, tmp_path):
    finish(train(run_settings(tiny_checkpoint, folders[0], train__length=2), run_dir=tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    steps = [line for line in lines if line["type"] == "step"]
    assert [(s["step"], s["samples"]) for s in steps] == [(1, 1), (2, 2)]
    assert {"loss", "lr", "time"} <= steps[0].keys()
