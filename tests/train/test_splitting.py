"""Out of memory: the batch is taken in pieces, with the same gradients; a message where that is not enough."""
from __future__ import annotations

import pytest
import torch

from lib_sdtrain import train
from lib_sdtrain.errors import JobFailed
from lib_sdtrain.train import objective
from lib_sdtrain.train.splitting import REMEDY, doubled, pieces
from lib_sdtrain.train.trainer import Trainer
from tests.tiny import write_tiny
from tests.train.runs import run_settings
from tests.train.test_step import double_batch, gradients, make_trainer


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_shares_add_up_to_the_loss(reduction):
    losses = torch.rand(5, generator=torch.Generator().manual_seed(0))
    for is_class in ([False] * 5, [False, False, True, True, True]):
        roles = torch.tensor(is_class)
        shares = objective.loss_shares(roles, 0.7, reduction)
        wanted = objective.reduce_losses(losses, roles, 0.7, reduction)
        torch.testing.assert_close((losses * shares).sum(), wanted)


def test_gradients_are_the_same_in_pieces(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 3), picture_folder("c", 3), train__batch_size=3,
        loss__prior_loss_weight=0.5, loss__min_snr_gamma=5.0, train__max_grad_norm=0.0,
    )
    trainer = make_trainer(settings, tmp_path)
    batch = double_batch(trainer)
    whole = gradients(trainer, trainer.loss(batch))
    for count in (2, 4, 6):
        trainer.pieces = count
        for part in trainer.parts.values():
            part.zero_grad(set_to_none=True)
        total = trainer._micro_step(batch)
        grads = [p.grad.flatten() for part in trainer.parts.values() for p in part.parameters() if p.grad is not None]
        assert float((torch.cat(grads) - whole).norm() / whole.norm()) < 1e-6
        assert total == pytest.approx(trainer.loss(batch).item(), rel=1e-6)
    sizes = [len(part.prompts) for part, _ in pieces(batch, 4)]
    assert sizes == [2, 2, 1, 1]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_captions_of_several_lengths_are_read_the_same_in_pieces(family, picture_folder, tmp_path):
    """The longest caption of the batch decides how long all are, whichever piece it is in."""
    folder = picture_folder("i", 3)
    for index, words in enumerate((2, 100, 180)):
        (folder / f"{index}.txt").write_text("cat " * words)
    settings = run_settings(
        write_tiny(tmp_path / "model.safetensors", family), folder, train__batch_size=3, train__max_grad_norm=0.0,
        model__max_token_length="225",
    )
    trainer = make_trainer(settings, tmp_path)
    batch = double_batch(trainer)
    assert sorted(len(prompt.split()) for prompt in batch.prompts) == [2, 100, 180]
    whole = gradients(trainer, trainer.loss(batch))
    trainer.pieces = 3
    for part in trainer.parts.values():
        part.zero_grad(set_to_none=True)
    trainer._micro_step(batch)
    grads = [p.grad.flatten() for part in trainer.parts.values() for p in part.parameters() if p.grad is not None]
    assert float((torch.cat(grads) - whole).norm() / whole.norm()) < 1e-6


def test_a_step_that_does_not_fit_begins_anew_with_smaller_pieces(
    tiny_checkpoint, picture_folder, tmp_path, monkeypatch
):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 4), train__batch_size=4, train__gradient_accumulation_steps=2,
        train__optimizer="SGD",
    )
    roomy, tight = (make_trainer(settings, tmp_path) for _ in range(2))
    for trainer in (roomy, tight):
        for part in trainer.model.parts.values():
            part.float()
    forward, asked = tight.model.unet.forward, []

    def cramped(sample, *args, **more):
        asked.append(len(sample))
        if len(sample) > 1 and len(asked) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *args, **more)

    monkeypatch.setattr(tight.model.unet, "forward", cramped)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    one, two = roomy.train_step(), tight.train_step()
    assert asked == [4, 4, 2] + [1] * 8
    assert (tight.pieces, tight.samples) == (4, roomy.samples)
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    for a, b in zip(roomy.model.unet.parameters(), tight.model.unet.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_memory_that_runs_out_elsewhere_is_told_with_what_helps(
    tiny_checkpoint, picture_folder, tmp_path, monkeypatch
):
    def cramped(_trainer):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_update", cramped)  # moments are made in the first step
    settings = run_settings(tiny_checkpoint, picture_folder("i", 2))
    with pytest.raises(JobFailed, match=f"the device ran out of memory; {REMEDY}"):
        list(train(settings, run_dir=tmp_path / "run"))


def test_one_picture_that_does_not_fit_is_an_error_that_names_the_remedy():
    assert doubled(1, 3) == 2
    assert doubled(2, 3) == 3
    with pytest.raises(JobFailed, match="out of memory, even with one picture at a time") as failed:
        doubled(3, 3)
    assert REMEDY in str(failed.value)
