"""Chained stages: one file, several trainings, each from the former's weights, and resumed wherever it stood."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_sdtrain import train
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Notice, Preview, Saved, Started, Step, Stopped, result_of
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.forecast import forecast_stages
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.stages import plan_stages, stages_of
from tests.train.runs import finish, of_kind, run_settings

CHAIN = [{"data.resolution": "96", "train.length": 2}, {"data": {"resolution": 64}, "train": {"batch_size": 2}}]


def settings_of(checkpoint, instance, **changes):
    return run_settings(checkpoint, instance, **{"train__length": 3, "stages": CHAIN, "save__name": "m", **changes})


@pytest.fixture
def settings(tiny_checkpoint, picture_folder):
    return settings_of(tiny_checkpoint, picture_folder("i", 3, (120, 100)))


def test_each_stage_changes_what_the_one_before_it_had(settings):
    first, second, third = stages_of(settings)
    assert [stage.data.resolution for stage in (first, second, third)] == ["64", "96", "64"]
    assert [stage.train.length.amount for stage in (first, second, third)] == [3, 2, 2]
    assert [stage.train.batch_size for stage in (first, second, third)] == [1, 1, 2]
    assert [stage.train.seed for stage in (first, second, third)] == [0, 1, 2]
    assert [stage.save.name for stage in (first, second, third)] == ["m-stage-1", "m-stage-2", "m"]
    assert not any(stage.stages for stage in (first, second, third))


def test_names_seeds_and_words_of_stages_are_their_own(tiny_checkpoint, tmp_path):
    stages = [{"save.name": "x"}, {"preview.seed": 9}, {}]
    settings = settings_of(tiny_checkpoint, tmp_path, stages=stages, train__seed=5, save__embedding_dir="/words",
                           validation__seed=7)  # fmt: skip
    found = stages_of(settings)
    assert [stage.save.name for stage in found] == ["m-stage-1", "x", "m-stage-3", "m"]
    assert [stage.save.embedding_dir for stage in found] == ["", "", "", "/words"]
    assert [stage.train.seed for stage in found] == [5, 6, 7, 8]
    assert [stage.preview.seed for stage in found] == [None, 5, 9, 5]
    assert [stage.validation.seed for stage in found] == [7, 7, 7, 7]


def test_no_stage_is_measured_by_what_one_before_it_was_trained_on(tiny_checkpoint, picture_folder, tmp_path):
    settings = settings_of(tiny_checkpoint, picture_folder("i", 10), validation__fraction=0.2)
    plans = result_of(plan_stages(settings, tmp_path, "cpu", CancelToken()), lambda event: None)
    held = [{picture.sha256 for picture in plan.held_out[0].pictures} for plan in plans]
    trained = [{picture.sha256 for picture in plan.materials[0].pictures} for plan in plans]
    assert [len(found) for found in held] == [2, 2, 2]
    assert not held[-1] & set().union(*trained)
    assert held[0] == held[1] == held[2]


def test_a_chain_is_what_separate_runs_from_full_precision_files_would_be(settings, tmp_path):
    """Oracle: the second stage alone, from a checkpoint in fp32 of the first."""
    chain = finish(train(settings, run_dir=tmp_path / "chain"))
    assert isinstance(chain[-1], Finished), chain[-1]
    first, second, _ = stages_of(settings)
    one = finish(train(resolved(first, {"save.dtype": "fp32"}), run_dir=tmp_path / "one"))[-1].result["checkpoint"]
    two = finish(train(resolved(second, {"model.checkpoint": one, "save.dtype": "fp16"}), run_dir=tmp_path / "two"))
    wanted = load_file(two[-1].result["checkpoint"])
    got = load_file(tmp_path / "chain" / "stage-2" / "checkpoints" / "m-stage-2.safetensors")
    assert [name for name, value in wanted.items() if not torch.equal(got[name].to(value.dtype), value)] == []
    assert not all(torch.equal(got[name], value) for name, value in load_file(chain[-1].result["checkpoint"]).items())


def resolved(settings: RunSettings, changes: dict) -> RunSettings:
    from lib_sdtrain.settings.layers import to_plain

    return resolve(RunSettings, [Layer("before", to_plain(settings)), Layer("test", changes)]).settings


def test_the_run_counts_its_steps_through(tiny_checkpoint, picture_folder, tmp_path):
    request = {"prompt": "a dog", "steps": 1, "width": 64, "height": 64}
    settings = settings_of(tiny_checkpoint, picture_folder("i", 3), preview__prompts=[request])
    seen = finish(train(settings, run_dir=tmp_path / "run"))
    [started] = of_kind(seen, Started)
    assert (started.total, started.run_dir) == (7, str(tmp_path / "run"))
    assert [event.step for event in of_kind(seen, Step)] == [1, 2, 3, 4, 5, 6, 7]
    assert {event.total for event in of_kind(seen, Step)} == {7}
    assert sorted({event.step for event in of_kind(seen, Preview)}) == [0, 3, 5, 7]
    assert all((tmp_path / "run" / event.file).is_file() for event in of_kind(seen, Preview))
    made = [Path(event.file).name for event in of_kind(seen, Saved) if event.kind == "checkpoint"]
    assert made == ["m-stage-1.safetensors", "m-stage-2.safetensors", "m.safetensors"]
    assert seen[-1].result["steps"] == 7
    assert Path(seen[-1].result["checkpoint"]).name == "m.safetensors"


@pytest.mark.parametrize("stop", [2, 3, 4, 5])
def test_resume_is_exact_in_and_between_stages(tiny_checkpoint, picture_folder, tmp_path, stop):
    settings = settings_of(tiny_checkpoint, picture_folder("i", 3), ema__decay=0.5)
    whole = finish(train(settings, run_dir=tmp_path / "whole"))[-1].result
    token = CancelToken()
    stopped = finish(train(settings, token, tmp_path / "parts"), token, stop)
    assert isinstance(stopped[-1], Stopped), stopped[-1]
    going_on = finish(resume(tmp_path / "parts"))
    assert of_kind(going_on, Started)[0].step == stop
    assert [event.step for event in of_kind(going_on, Step)] == list(range(stop + 1, 8))
    assert going_on[-1].result["sha256"] == whole["sha256"]
    with pytest.raises(UserError, match="all 7 steps are done"):
        finish(resume(tmp_path / "parts"))


def test_other_pictures_in_the_first_stage_make_another_file(tiny_checkpoint, picture_folder, tmp_path):
    made = []
    for index, folder in enumerate((picture_folder("a", 2), picture_folder("b", 2))):
        other = {"name": "sks", "instance_dir": str(tmp_path / "a"), "instance_prompt": "a photo of sks dog"}
        settings = settings_of(
            tiny_checkpoint, folder, train__length=1, stages=[{"data.concepts": [other], "train.learning_rate": 0.0}]
        )
        result = finish(train(settings, run_dir=tmp_path / f"run-{index}"))[-1].result
        made.append(result)
    assert made[0]["sha256"] != made[1]["sha256"]


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"stages": [{"data.resolutoin": 96}]}, "stages.0.data.resolutoin", "unknown setting"),
        ({"stages": [{"train.length": 1}, {"train.length": "ages"}]}, "stages.1.train.length", "ages"),
        ({"stages": ["96"]}, "stages.0", "not a mapping"),
        ({"stages": [{"method.kind": "lora"}]}, "stages.0.method.kind", "the same in all stages"),
        ({"stages": [{"stages": [{"train.length": 1}]}]}, "stages.0.stages", "cannot have stages"),
        ({"stages": [{"data.resolution": "1"}]}, "stages.0.data.resolution", ""),
        ({"train__optimizer": "schedule_free"}, "train.optimizer", "no end"),
        ({"stages": [{"train.optimizer": "schedule_free"}, {"train.optimizer": "adamw"}]}, "stages.0.train.optimizer",
         "no end"),
        ({"stages": [{"train.token_embedding_words": "sks", "train.token_embedding_lr": 1e-3}]},
         "stages.0.train.token_embedding_words", "the same in all stages"),
        ({"stages": [{"save.name": "x"}, {"save.name": "x"}], "save__dir": "/tmp"}, "stages.1.save.name",
         "a stage before it writes files of this name"),
    ],
)
def test_mistakes_are_told_with_their_stage(tiny_checkpoint, picture_folder, tmp_path, changes, where, what):
    settings = settings_of(tiny_checkpoint, picture_folder("i", 3), **changes)
    with pytest.raises(UserError) as caught:
        finish(train(settings, outputs=tmp_path / "out"))
    assert [problem.where for problem in caught.value.problems] == [where]
    assert what in caught.value.problems[0].what
    assert not (tmp_path / "out").exists()


def test_the_dry_run_tells_of_every_stage(settings, tmp_path):
    def planned():
        plans.extend((yield from plan_stages(settings, tmp_path, "cpu", CancelToken())))

    plans = []
    finish(planned())
    told = []
    document = result_of(forecast_stages(plans), told.append)
    assert [event.done for event in told] == [0, 1, 1, 2, 2, 3]  # a tiny model is not among those that are known
    assert document["steps"] == 7
    assert [(row["resolution"], row["steps"]) for row in document["stages"]] == [("64", 3), ("96", 2), ("64", 2)]
    assert [row["buckets"][0]["size"] for row in document["stages"]] == [[64, 64], [96, 96], [64, 64]]


def stopped(settings, tmp_path, step):
    token = CancelToken()
    seen = finish(train(settings, token, tmp_path / "run"), token, step)
    assert isinstance(seen[-1], Stopped), seen[-1]
    return tmp_path / "run"


def test_a_change_holds_from_the_stage_on_that_goes_on(settings, tmp_path):
    run = stopped(settings, tmp_path, 4)
    first = (run / "stage-1" / "config.yaml").read_text("utf-8")
    seen = finish(resume(run, {"train.learning_rate": 1e-5, "save.dtype": "fp32"}))
    assert isinstance(seen[-1], Finished), seen[-1]
    assert {event.lr for event in of_kind(seen, Step)} == {1e-5}
    said = [event.text for event in of_kind(seen, Notice) if event.text.startswith("changed")]
    assert said == ["changed: train.learning_rate: 0.001 -> 1e-05", "changed: save.dtype: parent -> fp32"]
    assert load_file(seen[-1].result["checkpoint"])["model.diffusion_model.out.2.bias"].dtype == torch.float32
    assert (run / "stage-1" / "config.yaml").read_text("utf-8") == first
    for number in (2, 3):
        assert RunDir(run / f"stage-{number}").read_config().train.learning_rate == 1e-5


@pytest.mark.parametrize(("changes", "where", "what"), [
    ({"train.batch_size": 3}, "train.batch_size", "stage 3 says it itself"),
    ({"method.kind": "lora"}, "method.kind", "cannot change while a run goes on"),
    ({"stages": []}, "stages", "cannot change while a run goes on"),
])
def test_what_cannot_change_in_a_run_of_stages(settings, tmp_path, changes, where, what):
    run = stopped(settings, tmp_path, 4)
    with pytest.raises(UserError, match=what) as caught:
        finish(resume(run, changes))
    assert [problem.where for problem in caught.value.problems] == [where]
    assert RunDir(run).read_config() == settings


@pytest.mark.parametrize(("stop", "total"), [(4, 3 + 8 + 2), (8, 3 + 8 + 2), (10, 3 + 6 + 2)])
def test_pictures_that_came_since_do_not_reopen_a_stage(tiny_checkpoint, picture_folder, tmp_path, stop, total):
    folder = picture_folder("i", 3)
    stages = [{"train.length": "2 epochs"}, {"train.length": 2}]
    run = stopped(settings_of(tiny_checkpoint, folder, train__length="1 epochs", stages=stages), tmp_path, stop)
    kept = (run / "stage-1" / "checkpoints" / "m-stage-1.safetensors").read_bytes()
    for file in picture_folder("more", 1).iterdir():
        file.rename(folder / "more.png")
    seen = finish(resume(run))
    assert isinstance(seen[-1], Finished), seen[-1]
    assert [event.step for event in of_kind(seen, Step)] == list(range(stop + 1, total + 1))
    assert {event.total for event in of_kind(seen, Step)} == {total}
    assert (run / "stage-1" / "checkpoints" / "m-stage-1.safetensors").read_bytes() == kept
    assert any("1 added" in event.text for event in of_kind(seen, Notice))


def test_another_file_under_the_checkpoints_name_is_refused(tiny_checkpoint, picture_folder, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(tiny_checkpoint.read_bytes())
    own.with_suffix(".yaml").write_bytes(tiny_checkpoint.with_suffix(".yaml").read_bytes())
    run = stopped(settings_of(own, picture_folder("i", 3)), tmp_path, 3)
    tensors = load_file(own)
    tensors["model.diffusion_model.out.2.bias"] += 1
    save_file(tensors, own)
    with pytest.raises(UserError, match="no longer the file that the run was begun with"):
        finish(resume(run))


def test_what_all_stages_would_say_of_the_same_pictures_is_said_once(settings, tmp_path):
    folder = Path(settings.data.concepts[0].instance_dir)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    said = [str(event) for event in of_kind(list(plan_stages(settings, tmp_path, "cpu", CancelToken())), Notice)]
    assert [line for line in said if "broken.png" in line] == said[:1]
    assert len(said) == 1
