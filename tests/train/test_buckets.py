"""Training in buckets: whole batches of one size, resumable, cached as uncached."""
from pathlib import Path

import pytest

from lib_sdtrain import train
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Notice
from lib_sdtrain.train.forecast import forecast
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.resume import resume
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_step import make_trainer

BUCKETS = {"data__bucketing": "kohya", "data__resolution": "128", "train__batch_size": 2}


@pytest.fixture
def shapes(picture_folder, tmp_path):
    """Three shapes: five wide, three square, one upright."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    for name, count, size in (("wide", 5, (256, 100)), ("square", 3, (128, 128)), ("upright", 1, (64, 128))):
        for file in picture_folder(name, count, size).iterdir():
            file.rename(folder / f"{name}{file.name}")
    return folder


def result_of(seen):
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"]).read_bytes()


def plan_of(settings, tmp_path):
    events = make_plan(settings, tmp_path, "cpu", CancelToken())
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def test_the_plan_has_the_table(tiny_checkpoint, shapes, tmp_path):
    document = forecast(plan_of(run_settings(tiny_checkpoint, shapes, **BUCKETS), tmp_path))
    assert [(row["size"], row["images"]) for row in document["buckets"]] == [
        ([192, 64], 5), ([128, 128], 3), ([64, 192], 1)]
    assert document["buckets"][0]["lost"] == pytest.approx(1 - 64 / 75, abs=1e-4)    # 256x100 becomes 192x75
    assert document["buckets"][2]["enlarged"] == 1
    assert document["images"] == 9


def test_pictures_without_a_place_are_named_and_left_out(tiny_checkpoint, shapes, tmp_path):
    settings = run_settings(tiny_checkpoint, shapes, **BUCKETS | {"data__too_small": "leave_out"})
    seen = finish(make_plan(settings, tmp_path, "cpu", CancelToken()))
    (notice,) = of_kind(seen, Notice)
    assert notice.where.endswith("upright0.png")
    assert "64x128 is smaller than its bucket 64x192" in notice.text
    with pytest.raises(UserError, match="none of its pictures is left"):
        finish(make_plan(run_settings(tiny_checkpoint, shapes, data__bucketing="sdxl"), tmp_path, "cpu", CancelToken()))


def test_every_batch_has_one_size_and_every_picture_its_turns(tiny_checkpoint, shapes, tmp_path):
    settings = run_settings(tiny_checkpoint, shapes, **BUCKETS)
    draws = Draws(plan_of(settings, tmp_path).materials, settings.data, 3, batch_size=2)
    seen = [draws.at(n) for n in range(360)]
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert first.target == second.target
    counts = [sum(draw.picture == picture for draw in seen) for picture in {draw.picture for draw in seen}]
    assert len(counts) == 9
    assert all(38 <= count <= 41 for count in counts)                      # 360 / 9, at most one batch a bucket waits
    sizes = [draw.target for draw in seen[::2]]
    assert len({tuple(sizes[n:n + 6]) for n in range(0, 180, 6)}) > 10     # no fixed order of buckets


def test_a_run_goes_on_bit_for_bit_and_caches_change_nothing(tiny_checkpoint, shapes, picture_folder, tmp_path):
    made = {**BUCKETS, "train__length": 5, "data__flip_p": 0.5}
    kept = picture_folder("class", 3, (192, 96))
    settings = run_settings(tiny_checkpoint, shapes, kept, **made)
    straight = result_of(finish(train(settings, run_dir=tmp_path / "runs" / "straight")))
    token = CancelToken()
    finish(train(settings, token, run_dir=tmp_path / "runs" / "cut"), token, stop_at=2)
    assert result_of(finish(resume(tmp_path / "runs" / "cut"))) == straight
    for cache in ("none", "disk"):
        other = run_settings(tiny_checkpoint, shapes, kept, **made, data__cache_latents=cache)
        assert result_of(finish(train(other, run_dir=tmp_path / "runs" / cache))) == straight


def test_a_resumed_run_may_change_its_batch_size(tiny_checkpoint, shapes, tmp_path):
    settings = run_settings(tiny_checkpoint, shapes, **{**BUCKETS, "train__length": 3, "train__batch_size": 1})
    finish(train(settings, run_dir=tmp_path / "run"))
    seen = finish(resume(tmp_path / "run", {"train.length": 6, "train.batch_size": 2}))
    assert isinstance(seen[-1], Finished)


def test_class_pictures_come_at_the_size_of_the_batch(tiny_checkpoint, shapes, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, shapes, picture_folder("class", 3), **BUCKETS, data__random_crop=True,
                            data__cache_latents="none")
    trainer = make_trainer(settings, tmp_path)
    for _ in range(6):
        batch = trainer.next_batch()
        assert batch.latents.shape[0] == 4
        assert batch.is_class.tolist() == [False, False, True, True]


def test_class_pictures_of_the_same_bucket_come_first(tiny_checkpoint, shapes, picture_folder, tmp_path):
    kept = picture_folder("class", 4, (128, 128))
    picture_folder("class-wide", 2, (192, 64))
    for number in range(2):
        (tmp_path / "class-wide" / f"{number}.png").rename(kept / f"wide{number}.png")
    settings = run_settings(tiny_checkpoint, shapes, kept, **BUCKETS, data__concepts__0__num_class_images=6)
    draws = Draws(plan_of(settings, tmp_path).materials, settings.data, 3, batch_size=2)
    seen = [(draws.at(n), draws.class_at(n)) for n in range(180)]
    wide = [kept.picture.path.name for own, kept in seen if own.target == (192, 64)]
    assert set(wide) == {"wide0.png", "wide1.png"}
    assert abs(wide.count("wide0.png") - wide.count("wide1.png")) <= 1
    assert all(own.target == kept.target for own, kept in seen)
