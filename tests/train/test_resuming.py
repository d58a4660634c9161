"""A run that was stopped goes on as if it had not been: weights, losses, previews, counters, whatever it trains."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.data import latents, scanning
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Notice, Preview, Step, Validation
from lib_sdtrain.model.writer import write_checkpoint
from lib_sdtrain.train import checks, convolutions
from lib_sdtrain.train import resume as resume_module
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.state import newest_state
from tests.train.runs import finish, of_kind, run_settings

LENGTH = 5
CASES = {
    "bf16, activations computed twice, linear after a warm-up": {
        "train.mixed_precision": "bf16", "train.gradient_checkpointing": True, "train.lr_scheduler": "linear",
        "train.lr_warmup": 2,
    },
    "fp16 with its scaler, which grows and shrinks on the way": {
        "train.mixed_precision": "fp16", "train.grad_scaler_growth": 1, "method.train_text_encoder": False,
    },
    "polynomial, random crops, masks, validation": {
        "train.lr_scheduler": "polynomial", "data.random_crop": True, "data.cache_crops": 2, "loss.masked": True,
        "validation.fraction": 0.34, "validation.every": 1, "validation.timesteps": 2,
    },
    "restarts, tags shuffled, dropped and chosen, words replaced": {
        "train.lr_scheduler": "cosine_with_restarts", "data.shuffle_caption": True, "data.tag_dropout_rate": 0.3,
        "data.enable_wildcard": True, "data.replace_words": {"grass": "meadow"}, "data.replace_words_from": 3,
        "data.caption_dropout_rate": 0.3, "data.flip_p": 0.5,
    },
    "steps, folders that count, latents on disk, buckets, an average": {
        "train.lr_scheduler": "piecewise_constant", "train.lr_scheduler_args": {"step_rules": "1:2,0.1"},
        "data.concepts.0.weighting": "kohya", "data.cache_latents": "disk", "data.bucketing": "least_waste",
        "ema.decay": 0.9, "ema.warm_up": "power", "ema.every": 2, "ema.on_cpu": True,
    },
    "captions of tags made anew, own pictures as class pictures, a rate by their number": {
        "data.caption_generator": "nai", "data.caption_tags_min": 1, "data.caption_tags_max": 3,
        "data.concepts.0.class_prompt": "a photo of a dog", "data.concepts.0.class_from": "own",
        "train.scale_lr": "pictures", "train.learning_rate": 1e-5, "data.flip_p": 0.5,
    },
    "a LoRA with convolutions beside those in tiles, buckets": {
        "method.kind": "lora", "method.conv_rank": 2, "data.bucketing": "least_waste",
    },
    "every noise, Lion, batches of two in two parts": {
        "loss.noise_offset": 0.1, "loss.multires_noise_iterations": 3, "loss.input_perturbation": 0.1,
        "loss.kind": "huber", "train.optimizer": "lion", "train.batch_size": 2,
        "train.gradient_accumulation_steps": 2,
    },
}


@pytest.fixture
def pictures(picture_folder, tmp_path):
    """Five pictures of several shapes in two folders, with captions, two with masks."""
    folder = picture_folder("i", 3)
    more = folder / "3_more"
    more.mkdir()
    for index, size in enumerate([(96, 64), (64, 96)]):
        Image.radial_gradient("L").resize(size).convert("RGB").save(more / f"{index}.png")
        Image.linear_gradient("L").resize(size).save(more / f"{index}-masklabel.png")
    for index, picture in enumerate(sorted(folder.rglob("[0-9].png"))):
        picture.with_suffix(".txt").write_text(f"a dog, {{big|small}}, grass, number {index}")
    return folder


def settings_of(checkpoint: Path, pictures: Path, own: dict[str, object]):
    """The run of a case."""
    concept = {"name": "sks", "instance_dir": str(pictures), "instance_prompt": "a photo of sks dog"}
    concept |= {key.rpartition(".")[2]: value for key, value in own.items() if key.startswith("data.concepts.0.")}
    rest = {key.replace(".", "__"): value for key, value in own.items() if not key.startswith("data.concepts.0.")}
    return run_settings(
        checkpoint, pictures, **{"train__length": LENGTH, "data__concepts": [concept], "save__state_every": 2,
        "preview__prompts": [{"prompt": "a dog", "steps": 1, "width": 64, "height": 64, "seed": 3}],
        "preview__every": 2, **rest},
    )  # fmt: skip


def told(run: Path, seen: list) -> tuple:
    """What may not differ: losses, rates and counters by step, validation, previews, the file. Nothing comes twice."""
    steps = [(event.step, event.samples, event.loss, event.smoothed, event.lr) for event in of_kind(seen, Step)]
    validations = sorted((event.step, event.name, event.loss) for event in of_kind(seen, Validation))
    previews = sorted((event.file, (run / event.file).read_bytes()) for event in of_kind(seen, Preview))
    return steps, validations, previews, seen[-1].result["sha256"]


def changes_told(seen: list) -> list[str]:
    """What has changed since the state was saved."""
    return [notice.text for notice in of_kind(seen, Notice) if notice.text.startswith("changed: ")]


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_twice_tells_and_writes_the_same(tiny_checkpoint, pictures, tmp_path, monkeypatch, case):
    check = checks.check_settings
    monkeypatch.setattr("lib_sdtrain.train.plan.check_settings", lambda settings, device, problems: check(
        settings, "cuda" if settings.train.mixed_precision == "fp16" else device, problems))
    for limit, value in (("TILED_CHANNELS", 1), ("TILED_CHANNELS_A_PIXEL", 1000)) if "tiles" in case else ():
        monkeypatch.setattr(convolutions, limit, value)
    settings = settings_of(tiny_checkpoint, pictures, CASES[case])
    straight = told(tmp_path / "a" / "run", finish(train(settings, run_dir=tmp_path / "a" / "run", device="cpu")))
    run, seen, token = tmp_path / "b" / "run", [], CancelToken()
    seen += finish(train(settings, token, run_dir=run, device="cpu"), token, stop_at=2)  # when a preview is due
    token = CancelToken()
    seen += finish(resume(run, token=token, device="cpu"), token, stop_at=3)
    seen += finish(resume(run, device="cpu"))
    assert told(run, seen) == straight
    assert [step for step, *_ in straight[0]] == list(range(1, LENGTH + 1))
    if "fp16" in case:
        assert newest_state(run / "state").facts["scaler"]["scale"] != 65536.0


def test_another_length_rate_and_more_pictures_are_told_and_only_these_are_read(
    tiny_checkpoint, pictures, tmp_path, monkeypatch
):
    read, encoded = [], []
    facts, load = scanning.read_facts, latents.load_pixels
    monkeypatch.setattr(scanning, "read_facts", lambda path: read.append(path.name) or facts(path))
    monkeypatch.setattr(latents, "load_pixels", lambda *a: encoded.append(a[0].picture.path.name) or load(*a))
    run = tmp_path / "runs" / "run"
    settings = settings_of(tiny_checkpoint, pictures, {"data.cache_latents": "disk", "train.length": 20})
    token = CancelToken()
    finish(train(settings, token, run_dir=run, outputs=tmp_path), token, stop_at=1)
    assert len(read) == 5
    read.clear()
    encoded.clear()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(pictures / "new.png")
    (pictures / "0.txt").write_text("another")
    changes = {"train.length": 25, "train.learning_rate": 1e-5}
    token = CancelToken()
    seen = finish(resume(run, changes, token), token, stop_at=2)
    assert changes_told(seen) == [
        "changed: train.length: 20 -> 25", "changed: train.learning_rate: 0.001 -> 1e-05",
        "changed: sks, pictures: 1 added, 1 with another caption",
    ]
    assert read == ["new.png"]
    assert encoded == ["new.png"]
    assert of_kind(seen, Step)[0].lr == 1e-5


@pytest.mark.parametrize(("length", "batch", "counts", "places"), [
    ("32 samples", 8, [5, 6], [16, 24]), ("32 samples", 2, list(range(5, 13)), list(range(16, 32, 2))),
    ("4 epochs", 8, [5, 6], [16, 24]), ("32 samples", 5, [5, 6, 7], [20, 25, 30]),
])  # fmt: skip
def test_a_run_goes_on_with_another_batch_size_to_the_same_length(
    tiny_checkpoint, picture_folder, tmp_path, length, batch, counts, places
):
    """`places`: how many samples of 32 the schedule has seen before each of the steps that follow 16 samples."""
    settings = run_settings(
        tiny_checkpoint, picture_folder("eight", 8), train__length=length, train__batch_size=4,
        train__lr_scheduler="linear", train__gradient_accumulation_steps=1,
    )
    token, run = CancelToken(), tmp_path / "run"
    assert of_kind(finish(train(settings, token, run_dir=run), token, stop_at=4), Step)[-1].samples == 16
    seen = finish(resume(run, {"train.batch_size": batch}))
    steps = of_kind(seen, Step)
    assert [step.step for step in steps] == counts
    assert {step.total for step in steps} == {counts[-1]}
    assert [step.samples for step in steps] == [16 + batch * n for n in range(1, len(counts) + 1)]
    end = batch * -(-32 // batch)
    assert [step.lr for step in steps] == pytest.approx([1e-3 * (1 - place / end) for place in places])
    with pytest.raises(UserError, match=f"all {counts[-1]} steps are done"):
        finish(resume(run))


def test_a_length_in_steps_is_counted_in_steps_whatever_the_batch(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("eight", 8), train__length=4, train__lr_scheduler="linear")
    token, run = CancelToken(), tmp_path / "run"
    finish(train(settings, token, run_dir=run), token, stop_at=2)
    steps = of_kind(finish(resume(run, {"train.batch_size": 4})), Step)
    assert [(step.step, step.total, step.samples) for step in steps] == [(3, 4, 6), (4, 4, 10)]
    assert [step.lr for step in steps] == pytest.approx([5e-4, 2.5e-4])


def test_other_masks_are_told(tiny_checkpoint, pictures, tmp_path):
    run = tmp_path / "runs" / "run"
    token = CancelToken()
    settings = settings_of(tiny_checkpoint, pictures, {"loss.masked": True})
    finish(train(settings, token, run_dir=run), token, stop_at=1)
    Image.new("L", (96, 64), 200).save(pictures / "3_more" / "0-masklabel.png")
    token = CancelToken()
    seen = finish(resume(run, token=token), token, stop_at=2)
    assert changes_told(seen) == [f"changed: {resume_module.BEYOND}"]


@pytest.mark.fault("that the checkpoint is another file now; the state stays as it was")
def test_a_run_does_not_go_on_with_another_file_under_its_checkpoints_name(tiny_checkpoint, pictures, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(tiny_checkpoint.read_bytes())
    own.with_suffix(".yaml").write_bytes(tiny_checkpoint.with_suffix(".yaml").read_bytes())
    run, token = tmp_path / "runs" / "run", CancelToken()
    finish(train(settings_of(own, pictures, {}), token, run_dir=run), token, stop_at=1)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    tensors = load_file(own)
    tensors["first_stage_model.decoder.conv_in.bias"] += 1
    write_checkpoint(own, tensors, {}, own.with_suffix(".yaml").read_text())
    with pytest.raises(UserError, match=r"model\.checkpoint: this is no longer the file"):
        finish(resume(run))
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    lines = [json.loads(line)["type"] for line in before["events.jsonl"].decode().splitlines()]
    assert lines[-1] == "stopped"


def test_going_on_under_another_name_overwrites_no_other_run(tiny_checkpoint, pictures, tmp_path):
    run, out, token = tmp_path / "run", tmp_path / "out", CancelToken()
    settings = run_settings(tiny_checkpoint, pictures, save__dir=str(out), save__name="mine", train__length=3)
    finish(train(settings, token, run_dir=run, device="cpu"), token, stop_at=1)
    others = [out / "theirs_ema-000002.safetensors", out / "theirs.safetensors"]
    for file in others:
        file.write_bytes(b"hours of another run")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    further = {"save.also": [{"suffix": "_ema", "dtype": "fp32"}], "save.name": "theirs"}
    with pytest.raises(UserError) as caught:
        finish(resume(run, further, device="cpu"))
    told = [problem.what for problem in caught.value.problems]
    assert told == [f"{file.name} is already there" for file in others]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    seen = finish(resume(run, {"save.also": further["save.also"], "save.name": "other"}, device="cpu"))
    assert Path(seen[-1].result["checkpoint"]).name == "other.safetensors"
    assert all(file.read_bytes() == b"hours of another run" for file in others)
    seen = finish(resume(run, {"save.name": "mine", "train.length": 4}, device="cpu"))  # which it was called before
    assert Path(seen[-1].result["checkpoint"]).name == "mine.safetensors"


def test_a_run_without_a_result_goes_on_over_no_file_of_another(tiny_checkpoint, picture_folder, tmp_path):
    own = {"train__length": 3, "save__name": "m", "save__dir": str(tmp_path / "models"), "save__state_every": 1}
    folder, token = picture_folder("i", 2), CancelToken()
    for event in train(run_settings(tiny_checkpoint, folder, **own), token, tmp_path / "a"):
        if isinstance(event, Step) and event.step == 2:
            token.stop_now()
    assert newest_state(tmp_path / "a" / "state").facts["step"] == 1
    finish(train(run_settings(tiny_checkpoint, folder, **own, train__learning_rate=1e-4), run_dir=tmp_path / "b"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()}
    with pytest.raises(UserError, match=r"save\.name: m\.safetensors is already there"):
        finish(resume(tmp_path / "a"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()} == before
    finish(resume(tmp_path / "a", {"save.name": "other"}))
    assert {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir() if path.stem != "other"} == before
    assert (tmp_path / "models" / "other.safetensors").exists()


@pytest.mark.parametrize(("optimizer", "args", "lacking"), [
    ("adamw", {"amsgrad": True}, "max_exp_avg_sq"), ("adafactor", {"beta1": 0.9}, "exp_avg"),
    ("RMSprop", {"momentum": 0.9, "centered": True}, "grad_avg, momentum_buffer"),
])
def test_arguments_that_need_what_was_not_kept_are_refused_and_not_written(
    tiny_checkpoint, picture_folder, tmp_path, optimizer, args, lacking
):
    own = run_settings(tiny_checkpoint, picture_folder("i", 2), train__optimizer=optimizer, train__length=3)
    token = CancelToken()
    finish(train(own, token, tmp_path / "run"), token, stop_at=1)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=f"goes on from {lacking}, which the run has not kept"):
        finish(resume(tmp_path / "run", {"train.optimizer_args": args}))
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert len(of_kind(finish(resume(tmp_path / "run", {"train.optimizer_args": {"weight_decay": 0.5}})), Step)) == 2
