"""What a run says it has saved is on the disk, whole, and loads; what cannot be saved is said and costs nothing."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.events import Finished, Saved, Step
from lib_sdtrain.model import writer
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.keys import UNET, VAE, part_rows
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.run_outputs import SaveSettings
from lib_sdtrain.train import child, layout, outputs
from lib_sdtrain.train.results import CHECKPOINT
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.state import newest_state
from lib_sdtrain.train.trainer import Trainer
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind, run_settings


@pytest.fixture
def settings(tiny_checkpoint, picture_folder):
    return run_settings(tiny_checkpoint, picture_folder("i", 2), train__length=2)


def until_it_fails(events, error: type[Exception], match: str) -> list:
    """The events before the error."""
    seen = []
    with pytest.raises(error, match=match):
        seen.extend(events)
    return seen


def flipped(position: int):
    """Flips a bit of the written file, as a failing disk would, before it is read back."""
    def read_back(path: Path, digest: str):
        with path.open("r+b") as file:
            file.seek(position, 0 if position >= 0 else 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
        return right(path, digest)

    right = writer._read_back
    return read_back


@pytest.mark.parametrize("position", [9, -1])
@pytest.mark.fault("that the file reads back different; no checkpoint under its name, the state to go on from stands")
def test_a_damaged_checkpoint_is_never_called_saved(settings, tmp_path, monkeypatch, position):
    write = child.write_child

    def on_a_failing_disk(*given):
        with monkeypatch.context() as patch:
            patch.setattr(writer, "_read_back", flipped(position))
            return write(*given)

    monkeypatch.setitem(outputs.WRITERS, CHECKPOINT, on_a_failing_disk)
    seen = until_it_fails(train(settings, run_dir=tmp_path / "run"), OSError, "reads back different")
    assert [saved.kind for saved in of_kind(seen, Saved)] == ["state"]
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    monkeypatch.undo()
    assert isinstance(finish(resume(tmp_path / "run"))[-1], Finished)


@pytest.mark.parametrize("lost", ["model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.bias"])
def test_a_checkpoint_that_lacks_what_the_webui_loads_is_never_called_saved(settings, tmp_path, monkeypatch, lost):
    right = layout.child_specs
    monkeypatch.setattr(child, "child_specs", lambda *given: {
        name: spec for name, spec in right(*given).items() if name != lost
    })
    seen = until_it_fails(train(settings, run_dir=tmp_path / "run"), JobFailed, f"the first is {lost}")
    assert [saved.kind for saved in of_kind(seen, Saved)] == ["state"]
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_tensor_of_another_shape_is_found(tmp_path):
    target = writer.CheckpointWriter(
        tmp_path / "a.safetensors", {"a": (torch.float32, (2, 3))}, {}, verify=True, expects={"a": (3, 2)}
    )
    with pytest.raises(JobFailed, match="1 of 1 tensors"), target:
        target.write("a", torch.zeros(2, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_what_is_expected_is_the_familys_own_table_less_what_is_left_out(tmp_path, settings, name):
    checkpoint = open_checkpoint(write_tiny(tmp_path / "a.safetensors", name))
    rows = part_rows(checkpoint.family)
    assert set(layout.expected_tensors(checkpoint, settings)) == {row.key for table in rows.values() for row in table}
    bare = replace(settings, save=replace(SaveSettings(), vae=False, text_encoder=False))
    assert set(layout.expected_tensors(checkpoint, bare)) == {row.key for row in rows[UNET]}
    no_vae = replace(settings, save=replace(SaveSettings(), vae=False))
    assert not set(layout.expected_tensors(checkpoint, no_vae)) & {row.key for row in rows[VAE]}


def spoiling(monkeypatch, at: int, value: float) -> None:
    """Put a value into a weight with the update of a step."""
    right = Trainer._update

    def update(trainer):
        right(trainer)
        if trainer.step == at - 1:
            with torch.no_grad():
                next(iter(trainer.parts["unet"].parameters())).view(-1)[0] = value

    monkeypatch.setattr(Trainer, "_update", update)


@pytest.mark.fault("which step ruined the weights and what to change; the last good state stays")
def test_weights_that_are_no_numbers_never_replace_a_good_state(settings, tmp_path, monkeypatch):
    spoiling(monkeypatch, 2, float("nan"))
    every_step = replace(settings, save=replace(settings.save, state_every=Length(1)))
    seen = until_it_fails(train(every_step, run_dir=tmp_path / "run"), JobFailed, "a weight of unet .* at step 2")
    assert of_kind(seen, Step)[-1].step == 2
    state = newest_state(tmp_path / "run" / "state").load()
    assert state.facts["step"] == 1
    assert all(value.isfinite().all() for value in state.tensors.values())


@pytest.mark.parametrize(("key", "part"), [
    ("model.diffusion_model.out.2.bias", "unet"), ("first_stage_model.encoder.conv_in.weight", "vae"),
])
@pytest.mark.fault("that the checkpoint is damaged, and where; no step is taken")
def test_a_checkpoint_whose_weights_are_no_numbers_is_refused(tmp_path, tiny_checkpoint, settings, key, part):
    tensors = load_file(tiny_checkpoint)
    tensors[key].view(-1)[0] = float("nan")
    broken = tmp_path / "broken.safetensors"
    writer.write_checkpoint(broken, tensors, {}, tiny_checkpoint.with_suffix(".yaml").read_text())
    chosen = replace(settings, model=replace(settings.model, checkpoint=str(broken)))
    seen = until_it_fails(train(chosen, run_dir=tmp_path / "run"), UserError, f"weights of its {part} are infinite")
    assert not of_kind(seen, Step)


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(settings, tmp_path, monkeypatch):
    spoiling(monkeypatch, 1, float("inf"))
    said = "the loss is nan at step 2; .*; no state had been saved yet"
    seen = until_it_fails(train(settings, run_dir=tmp_path / "run"), JobFailed, said)
    assert of_kind(seen, Step)[-1].step == 1
    assert not (tmp_path / "run" / "state").exists()


def losing(monkeypatch, at: int, spoil) -> None:
    """Spoil the loss of a step, while the weights are good."""
    right = Trainer.loss
    monkeypatch.setattr(Trainer, "loss", lambda trainer, batch: spoil(right(trainer, batch)) if trainer.step == at - 1
                        else right(trainer, batch))  # fmt: skip


class NoGradient(torch.autograd.Function):
    """A number as it is, whose gradient is none."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


@pytest.mark.parametrize("way", [{}, {"step_in_backward": True}, {"max_grad_norm": 0.0}])
@pytest.mark.parametrize(("spoil", "what"), [
    (lambda loss: loss * float("inf"), "the loss is inf"),
    (NoGradient.apply, "a gradient is infinite or no number"),
])  # fmt: skip
@pytest.mark.fault("the step, the likely cause, and that the state before it is saved; a run goes on from there")
def test_what_was_there_before_a_step_without_numbers_is_saved(
    settings, tmp_path, monkeypatch, spoil, what, way
):
    own = replace(settings, train=replace(settings.train, **way))
    straight = finish(train(own, run_dir=tmp_path / "straight"))[-1].result
    losing(monkeypatch, 2, spoil)
    said = f"{what} at step 2; .*; the state before that step is saved"
    seen = until_it_fails(train(own, run_dir=tmp_path / "run"), JobFailed, said)
    assert of_kind(seen, Step)[-1].step == 1
    assert newest_state(tmp_path / "run" / "state").facts["step"] == 1
    monkeypatch.undo()
    assert finish(resume(tmp_path / "run"))[-1].result["sha256"] == straight["sha256"]


def test_weights_beyond_the_files_format_are_not_saved_as_infinite(settings, tmp_path, monkeypatch):
    spoiling(monkeypatch, 2, 70000.0)
    said = r"save\.dtype: .* values that float16 cannot hold"
    until_it_fails(train(settings, run_dir=tmp_path / "run"), JobFailed, said)
    monkeypatch.undo()
    seen = finish(resume(tmp_path / "run", {"save.dtype": "fp32"}))
    assert isinstance(seen[-1], Finished)
    written = open_checkpoint(seen[-1].result["checkpoint"])
    rows = part_rows(written.family)[UNET]
    assert max(written.tensor(row.key).max().item() for row in rows) == 70000.0


@pytest.mark.parametrize("folder", ["", "results"])
def test_files_are_told_by_their_whole_path_whoever_reads_it_later(settings, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    own = replace(settings, save=replace(settings.save, dir=folder))
    seen = finish(train(own, run_dir=Path("runs") / "one"))
    told = [*(event.file for event in of_kind(seen, Saved)), seen[-1].result["checkpoint"], seen[-1].result["run_dir"]]
    assert len(told) == 4
    assert all(Path(file).is_absolute() and Path(file).exists() for file in told)
