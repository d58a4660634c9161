"""A step that fails for another reason than its numbers: what was there before it is saved, and goes on."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_sdtrain import train
from lib_sdtrain.data import masks as masks_module
from lib_sdtrain.data.shards import DamagedShard, ShardStore
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.events import Finished, Notice, Saved, Step
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.train import previews
from lib_sdtrain.train.backward_steps import BackwardSteps
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.state import newest_state
from lib_sdtrain.train.trainer import Trainer
from tests.train.runs import finish, of_kind, run_settings

KEPT = "the state before that step is saved"


@pytest.fixture
def settings(tiny_checkpoint, picture_folder):
    return run_settings(tiny_checkpoint, picture_folder("i", 2), train__length=3, data__cache_latents="none")


def with_train(settings, **changes):
    return replace(settings, train=replace(settings.train, **changes))


def failing(events, error: type[Exception], after: int = 0, then=lambda: None) -> tuple[list, Exception]:
    """What came before the error, and the error; `then` is done once step `after` is taken."""
    seen = []

    def all_of_them():
        for event in events:
            seen.append(event)
            if isinstance(event, Step) and event.step == after:
                then()

    with pytest.raises(error) as caught:
        all_of_them()
    return seen, caught.value


def goes_on_as(straight, run_dir, step: int) -> None:
    """The run has the state of that step, and comes from there to where the other came."""
    assert newest_state(run_dir / "state").facts["step"] == step
    assert finish(resume(run_dir))[-1].result["sha256"] == straight["sha256"]


@pytest.mark.parametrize("way", [
    {}, {"step_in_backward": True, "max_grad_norm": 0.0}, {"gradient_accumulation_steps": 2},
], ids=["plain", "in backward", "accumulated"])  # fmt: skip
@pytest.mark.fault("which picture, and that the state before the step is saved; a run goes on from there")
def test_a_picture_that_is_gone_while_training(settings, tmp_path, way):
    own = with_train(settings, **way)
    straight = finish(train(own, run_dir=tmp_path / "straight"))[-1].result
    pictures = sorted((tmp_path / "i").iterdir())
    whole = [path.read_bytes() for path in pictures]
    seen, error = failing(
        train(own, run_dir=tmp_path / "run"), UserError, 2, lambda: [path.write_bytes(b"") for path in pictures]
    )
    (problem,) = error.problems
    assert "changed while training" in problem.what
    assert problem.where in map(str, pictures)
    assert problem.fix == KEPT
    assert [saved.kind for saved in of_kind(seen, Saved)] == ["state"]
    for path, content in zip(pictures, whole, strict=True):
        path.write_bytes(content)
    goes_on_as(straight, tmp_path / "run", 2)


def test_a_mask_that_is_gone_while_training(tiny_checkpoint, picture_folder, tmp_path):
    folder, masks = picture_folder("i", 2), picture_folder("masks", 2)
    concept = {"name": "sks", "instance_dir": str(folder), "instance_prompt": "a dog", "mask_dir": str(masks)}
    settings = run_settings(
        tiny_checkpoint, folder, train__length=3, data__concepts=[concept], loss__masked=True
    )

    def gone():
        masks_module._cached_mask.cache_clear()
        for path in masks.iterdir():
            path.unlink()

    masks_module._cached_mask.cache_clear()
    _, error = failing(train(settings, run_dir=tmp_path / "run"), UserError, 2, gone)
    assert "the mask cannot be read" in str(error)
    assert str(error).endswith(KEPT)
    assert newest_state(tmp_path / "run" / "state").facts["step"] == 2


def test_latents_that_are_damaged_while_training(settings, tmp_path, monkeypatch):
    own = replace(settings, data=replace(settings.data, cache_latents="disk"))
    straight = finish(train(own, run_dir=tmp_path / "straight", outputs=tmp_path / "o"))[-1].result

    def damaged(_store, name):
        raise DamagedShard(name)

    _, error = failing(
        train(own, run_dir=tmp_path / "run", outputs=tmp_path / "o"), JobFailed, 2,
        lambda: monkeypatch.setattr(ShardStore, "get", damaged),
    )
    assert error.problem.fix == f"go on with the run: they are made again; {KEPT}"
    monkeypatch.undo()
    goes_on_as(straight, tmp_path / "run", 2)


def no_memory(*_args, **_more):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("way", [{}, {"step_in_backward": True}], ids=["plain", "in backward"])
@pytest.mark.fault("what takes less memory, and that the state before the step is saved; a run goes on from there")
def test_memory_that_runs_out_later_in_a_training(settings, tmp_path, monkeypatch, way):
    own = with_train(settings, **way)
    straight = finish(train(own, run_dir=tmp_path / "straight"))[-1].result
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    seen, error = failing(
        train(own, run_dir=tmp_path / "run"), JobFailed, 2, lambda: monkeypatch.setattr(Trainer, "loss", no_memory)
    )
    assert "out of memory" in error.problem.what
    assert error.problem.fix.endswith(f"; {KEPT}")
    assert any("the state before that step is being saved" in notice.text for notice in of_kind(seen, Notice))
    monkeypatch.undo()
    goes_on_as(straight, tmp_path / "run", 2)


def test_weights_of_half_a_step_are_no_state(settings, tmp_path, monkeypatch):
    """Where weights move within backward, a failure in there leaves some of them moved."""
    own = with_train(settings, step_in_backward=True, max_grad_norm=0.0, length=Length(4))
    own = replace(own, save=replace(own.save, state_every=Length(2)))
    right, moved = BackwardSteps._step, []

    def half(steps, number, parameters):
        right(steps, number, parameters)
        moved.append(number)
        if len(moved) == 3:
            no_memory()

    _, error = failing(
        train(own, run_dir=tmp_path / "run"), JobFailed, 3,
        lambda: monkeypatch.setattr(BackwardSteps, "_step", half),
    )
    assert len(moved) == 3
    assert error.problem.fix.endswith("; the last saved state is good")
    assert newest_state(tmp_path / "run" / "state").facts["step"] == 2


def test_nothing_is_saved_before_the_first_step(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(Trainer, "loss", no_memory)
    _, error = failing(train(settings, run_dir=tmp_path / "run"), JobFailed)
    assert error.problem.fix.endswith("; no state had been saved yet")
    assert not (tmp_path / "run" / "state").exists()


def test_a_preview_that_does_not_fit_costs_no_training(settings, tmp_path, monkeypatch):
    straight = finish(train(settings, run_dir=tmp_path / "straight"))[-1].result
    drawn = replace(settings, preview=replace(
        settings.preview, prompts=("a dog",), every=Length(2)))
    monkeypatch.setattr(previews, "generate", no_memory)
    seen = finish(train(drawn, run_dir=tmp_path / "run"))
    assert isinstance(seen[-1], Finished)
    assert seen[-1].result["sha256"] == straight["sha256"]
    said = [notice for notice in of_kind(seen, Notice) if "no previews" in notice.text]
    assert [notice.text.partition(":")[0] for notice in said] == [f"no previews at step {step}" for step in (0, 2, 3)]
    assert all("out of memory" in notice.text for notice in said)


def test_a_preview_without_numbers_costs_no_training_later(settings, tmp_path, monkeypatch):
    """As with previews of the WebUI: in the beginning it ends the run, since nothing is lost then."""
    drawn = replace(settings, preview=replace(settings.preview, prompts=("a dog",)))
    right = previews.generate

    def spoilt(model, request, *given, **more):
        if more["surroundings"].facts.model.endswith(step):
            raise JobFailed("the UNet gave no numbers (NaN)")
        return right(model, request, *given, **more)

    monkeypatch.setattr(previews, "generate", spoilt)
    step = "000003"
    seen = finish(train(drawn, run_dir=tmp_path / "late"))
    assert isinstance(seen[-1], Finished)
    said = "no previews at step 3: the UNet gave no numbers (NaN)"
    assert said in [notice.text for notice in of_kind(seen, Notice)]
    step = "000000"
    failing(train(drawn, run_dir=tmp_path / "early"), JobFailed)
