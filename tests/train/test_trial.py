"""The first step before all pictures are encoded: the same run, known sooner to be possible."""
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib_sdtrain import train
from lib_sdtrain.api.runs import read_run
from lib_sdtrain.data import latents as latents_module
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.events import CancelToken, Finished, Notice, Phase, Step, Stopped
from lib_sdtrain.train import loop, trial
from lib_sdtrain.train.data_plan import bucket_table, draws_of
from lib_sdtrain.train.memory import need as need_module
from lib_sdtrain.train.memory.parts import cached_bytes, cached_words_bytes
from lib_sdtrain.train.memory.tiles import encoder_bytes
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.trainer import Trainer
from tests.train.runs import finish, of_kind, run_settings

TOYBOX = Path("toybox")
PICTURES = trial.WORTH_IT + 2


@pytest.fixture
def folder(picture_folder):
    return picture_folder("subject", PICTURES)


@pytest.fixture
def decoded(monkeypatch):
    """Names of the pictures that were read for encoding."""
    found, load = [], latents_module.load_pixels
    monkeypatch.setattr(latents_module, "load_pixels", lambda *a: found.append(a[0].picture.path.name) or load(*a))
    return found


def result_of(seen):
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"]).read_bytes()


def order_of(seen):
    """`encoding` and steps as they came, what follows on its like left out."""
    found = []
    for event in seen:
        name = event.step if isinstance(event, Step) else event.name if isinstance(event, Phase) else None
        if name in ("encoding pictures", 1, 2) and found[-1:] != [name]:
            found.append(name)
    return found


SOONER = ["encoding pictures", 1, "encoding pictures", 2]
BEFORE = ["encoding pictures", 1, 2]


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("length", [PICTURES - 1, PICTURES + 2], ids=["what it sees", "all"])
def test_the_first_step_comes_first_and_the_run_is_the_same(
    folder, tmp_path, decoded, monkeypatch, cache, length
):
    settings = run_settings(
        TOYBOX, folder, train__length=length, data__cache_latents=cache,
        preview__prompts=[{"prompt": "a dog", "steps": 2}] if cache == "disk" else [], preview__every=PICTURES,
    )
    seen = finish(train(settings, run_dir=tmp_path / "a" / "run"))
    assert order_of(seen) == SOONER
    assert len(decoded) == min(length, PICTURES)
    first = next(event for event in seen if isinstance(event, Phase) and event.name == "encoding pictures")
    assert first.total == 1
    monkeypatch.setattr(loop, "takes_first_step_first", lambda plan, draws: False)
    plain = finish(train(settings, run_dir=tmp_path / "b" / "run"))
    assert order_of(plain) == BEFORE
    assert result_of(plain) == result_of(seen)
    assert [e.loss for e in of_kind(plain, Step)] == [e.loss for e in of_kind(seen, Step)]


@pytest.mark.parametrize("way", [
    {"class_pictures": True},
    {"sizes": True, "data__bucketing": "kohya", "data__resolution": "128", "train__batch_size": 2},
    {"train__gradient_accumulation_steps": 2, "train__step_in_backward": False},
], ids=["class pictures", "buckets", "accumulation"])
def test_the_run_is_the_same_in_every_way_to_draw(folder, picture_folder, tmp_path, monkeypatch, way):
    changes = {"train__length": PICTURES + 2, **way}
    classes = picture_folder("class", 7) if changes.pop("class_pictures", False) else None
    if changes.pop("sizes", False):
        for file in picture_folder("wide", PICTURES, (256, 100)).iterdir():
            file.rename(folder / f"wide{file.name}")
    settings = run_settings(TOYBOX, folder, classes, **changes)
    seen = finish(train(settings, run_dir=tmp_path / "a" / "run"))
    assert order_of(seen) == SOONER
    monkeypatch.setattr(loop, "takes_first_step_first", lambda plan, draws: False)
    plain = finish(train(settings, run_dir=tmp_path / "b" / "run"))
    assert order_of(plain) == BEFORE
    assert result_of(plain) == result_of(seen)


def test_what_cannot_be_trained_on_is_known_before_the_pictures_are_read(folder, tmp_path, decoded, monkeypatch):
    right = Trainer.loss
    monkeypatch.setattr(Trainer, "loss", lambda trainer, batch: right(trainer, batch) * float("nan"))
    with pytest.raises(JobFailed, match="the loss is nan at step 1"):
        finish(train(run_settings(TOYBOX, folder, train__length=PICTURES), run_dir=tmp_path / "run"))
    assert len(decoded) < PICTURES  # the first, and what a thread reads ahead


def test_a_damaged_shard_is_told_once(folder, tmp_path, decoded):
    settings = run_settings(TOYBOX, folder, train__length=PICTURES, data__cache_latents="disk")
    whole = result_of(finish(train(settings, run_dir=tmp_path / "a" / "run")))
    shards = sorted(tmp_path.rglob("*.shard"))
    assert len(shards) > 1
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-20])
    decoded.clear()
    seen = finish(train(settings, run_dir=tmp_path / "a" / "again"))
    assert result_of(seen) == whole
    told = [(event.text, event.where) for event in of_kind(seen, Notice)]
    assert len(told) == len(set(told)) == len(shards)
    assert len(decoded) == PICTURES


def test_who_stops_while_the_rest_is_encoded_goes_on_behind_the_first_step(
    folder, tmp_path, decoded
):
    settings = run_settings(TOYBOX, folder, train__length=PICTURES + 2)
    whole = result_of(finish(train(settings, run_dir=tmp_path / "whole" / "run")))

    def stopped(name, wish):
        token, seen = CancelToken(), []
        for event in train(settings, token, run_dir=tmp_path / name / "run"):
            seen.append(event)
            if of_kind(seen, Step) and isinstance(event, Phase):
                getattr(token, wish)()
        assert isinstance(seen[-1], Stopped)
        assert [event.step for event in of_kind(seen, Step)] == [1]
        return seen[-1]

    last = stopped("saved", "stop_and_save")
    assert (last.step, last.saved) == (1, True)
    decoded.clear()
    seen = finish(resume(tmp_path / "saved" / "run"))
    assert order_of(seen) == ["encoding pictures", 2]
    assert len(decoded) == PICTURES
    assert result_of(seen) == whole
    last = stopped("at once", "stop_now")
    assert (last.step, last.saved) == (0, True)  # it can begin again, and finds what was made
    assert read_run(tmp_path / "at once" / "run").resumable
    assert result_of(finish(resume(tmp_path / "at once" / "run"))) == whole


def test_a_picture_that_changed_is_named_whenever_it_is_encoded(folder, tmp_path):
    events = train(run_settings(TOYBOX, folder, train__length=PICTURES + 2), run_dir=tmp_path / "run")
    assert next(event for event in events if isinstance(event, Step)).step == 1
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="changed while training"):
        finish(events)


def planned(settings, tmp_path, device="cpu"):
    events = make_plan(settings, tmp_path / "outputs", device, CancelToken())
    while True:
        try:
            assert isinstance(next(events), (Phase, Notice))
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(("changes", "taken"), [
    ({}, True),
    ({"train__length": 1}, False),
    ({"train__length": 1 + trial.WORTH_IT}, True),
    ({"train__length": trial.WORTH_IT}, False),
    ({"data__cache_latents": "none"}, False),
    ({"data__random_crop": True, "data__cache_crops": 2}, True),
    ({"data__random_crop": True, "data__cache_crops": 2, "data__refresh_crops": 2}, False),
    ({"validation__count": 1}, False),
    ({"train__batch_size": 2, "train__length": 9}, True),
    ({"train__batch_size": 3, "train__length": 6}, False),
])  # fmt: skip
def test_it_is_taken_first_where_much_is_left_to_encode(folder, tmp_path, changes, taken):
    plan = planned(run_settings(TOYBOX, folder, **{"train__length": PICTURES + 2, **changes}), tmp_path)
    assert trial.takes_first_step_first(plan, draws_of(plan)) is taken


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_not_where_the_run_would_need_more_memory(folder, tmp_path, monkeypatch, device):
    settings = run_settings(TOYBOX, folder, train__length=PICTURES + 2, method__train_text_encoder=False)
    plan = planned(settings, tmp_path, device)
    draws, sizes = draws_of(plan), bucket_table(plan.materials, plan.settings.data)
    counts, encoding = plan.checkpoint.parameter_counts(), 10**9
    monkeypatch.setattr(need_module, "other_peak", lambda *a: encoding)
    taken = 4 * (counts["unet"] + counts["vae"]) + 8 * counts["unet"] + encoding + cached_words_bytes(plan)
    assert cached_words_bytes(plan) > 0
    if device == "cpu":
        taken += need_module.PROGRAM + cached_bytes(plan, sizes) + encoder_bytes(plan.family.vae, 64)
    for most, fits in ((taken, True), (taken - 1, False)):
        monkeypatch.setattr(need_module, "need", lambda *a, most=most: {"total": most})
        assert need_module.fits_between_steps(plan, draws, sizes) is fits
        assert trial.takes_first_step_first(plan, draws) is fits


def test_a_model_that_would_have_to_be_worked_out_first_waits(tiny_checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "fits_between_steps", None)
    plan = planned(run_settings(tiny_checkpoint, folder, train__length=PICTURES + 2), tmp_path)
    assert not trial.takes_first_step_first(plan, draws_of(plan))


def test_what_is_left_to_encode_does_not_count_as_training(folder, tmp_path, monkeypatch):
    """By a clock of which each picture takes 1000 seconds and each step one."""
    clock, load = [0.0], latents_module.load_pixels

    def slow(*arguments):
        clock[0] += 1000
        return load(*arguments)

    monkeypatch.setattr(latents_module, "load_pixels", slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    steps = []
    for event in train(run_settings(TOYBOX, folder, train__length=PICTURES), run_dir=tmp_path / "run"):
        if isinstance(event, Step):
            clock[0] += 1
            steps.append(event)
    assert clock[0] == 1001 * PICTURES
    assert steps[0].seconds_left is None
    assert [step.seconds_left for step in steps[1:]] == [
        pytest.approx((PICTURES - n) * (n - 1) / n) for n in range(2, PICTURES + 1)]


def test_each_stage_takes_its_first_step_first(folder, tmp_path):
    settings = run_settings(TOYBOX, folder, train__length=PICTURES, stages=[{"data.resolution": "128"}])
    seen = finish(train(settings, run_dir=tmp_path / "run"))
    assert isinstance(seen[-1], Finished)
    told = [getattr(event, "step", "encoding") for event in seen
            if isinstance(event, Step) or getattr(event, "name", "") == "encoding pictures"]  # fmt: skip
    for first in (1, PICTURES + 1):
        at, behind = told.index(first), told.index(first + 1)
        assert told[at - 1] == "encoding"
        assert set(told[at + 1 : behind]) == {"encoding"}
        assert behind - at > PICTURES
