"""What is told when a step finds no numbers, and fp16's loss scale."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_sdtrain.train import loss_scale
from lib_sdtrain.train.causes import likely_cause
from lib_sdtrain.train.soundness import NotFiniteError
from tests.train.runs import run_settings
from tests.train.test_step import make_trainer


@pytest.mark.parametrize(("changes", "rates", "cause"), [
    ({}, {"unet": 1e-6, "text_encoder": 5e-4}, "likely the learning rate of text_encoder: 0.0005"),
    ({}, {"unet": 1e-6, "text_encoder.token_embedding": 5e-3, "embedding": 5e-3}, "lower train.learning_rate"),
    ({"method__kind": "lora"}, {"unet": 5e-4}, "lower train.learning_rate"),
    ({"method__kind": "lora"}, {"unet": 5e-2}, "likely the learning rate of unet: 0.05"),
    ({"train__optimizer": "prodigy"}, {"unet": 1.0}, "lower train.learning_rate"),
    ({"train__mixed_precision": "fp16"}, {"unet": 1e-6}, "likely fp16"),
    ({"train__max_grad_norm": 0.0}, {"unet": 1e-6}, "set train.max_grad_norm to 1"),
])  # fmt: skip
def test_the_likeliest_cause_is_told(tiny_checkpoint, picture_folder, tmp_path, changes, rates, cause):
    folder = picture_folder("i", 2)
    batch = make_trainer(run_settings(tiny_checkpoint, folder), tmp_path).next_batch()
    settings = run_settings(tiny_checkpoint, folder, **changes)
    assert cause in likely_cause(settings, batch, rates)
    broken = replace(batch, latents=batch.latents / 0)
    assert f"caption {batch.prompts[0]!r} are no numbers: delete the cached latents" in likely_cause(
        settings, broken, rates)


def test_the_loss_scale_begins_at_65536_and_follows_what_it_finds():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = loss_scale.make_scaler("cpu", 3)
    scales = []
    for gradient in (1, 1, 1, float("inf"), 1, float("nan")):
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        loss_scale.update(scaler)
        optimizer.zero_grad()
        scales.append(scaler.get_scale())
    assert scales == [65536, 65536, 131072, 65536, 65536, 32768]
    assert weight.item() == -4


def test_a_loss_that_overflows_at_every_scale_is_told():
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), loss_scale.make_scaler("cpu", 2000)
    for scale in range(15, -11, -1):
        scaler.scale((weight * float("inf")).sum()).backward()
        scaler.step(optimizer)
        loss_scale.update(scaler)
        assert scaler.get_scale() == 2.0**scale
    scaler.scale((weight * float("inf")).sum()).backward()
    scaler.step(optimizer)
    with pytest.raises(NotFiniteError, match="all gradients overflow fp16"):
        loss_scale.update(scaler)
    again = loss_scale.make_scaler("cpu", 2000)
    loss_scale.restore(again, scaler.state_dict())
    assert again.get_scale() == 65536  # what made it overflow has been changed


def test_a_small_loss_scale_that_a_sound_step_finds_is_gone_on_with():
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), loss_scale.make_scaler("cpu", 2000)
    for scale in (2.0**-9, 2.0**-11):
        loss_scale.restore(scaler, {**scaler.state_dict(), "scale": scale})
        scaler.scale((weight * 2).sum()).backward()
        scaler.step(optimizer)
        loss_scale.update(scaler)
        optimizer.zero_grad()
        assert scaler.get_scale() == 2.0**-9


@pytest.mark.parametrize(("before", "now", "left"), [(100, 3, 1), (6, 3, 1), (3, 6, 4), (4, 4, 3)])
def test_how_often_the_loss_scale_grows_can_change(before, now, left):
    """After five sound steps; `left` more and the scale is doubled."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), loss_scale.make_scaler("cpu", before)

    def sound_step(scaler):
        scaler.scale((weight * 1.0).sum()).backward()
        scaler.step(optimizer)
        loss_scale.update(scaler)

    for _ in range(5):
        sound_step(scaler)
    again = loss_scale.make_scaler("cpu", now)
    loss_scale.restore(again, scaler.state_dict())
    kept = scaler.get_scale()
    assert (again.get_growth_interval(), again.get_scale()) == (now, kept)
    for _ in range(left - 1):
        sound_step(again)
        assert again.get_scale() == kept
    sound_step(again)
    assert again.get_scale() == 2 * kept


def test_a_torch_that_has_the_loss_scale_under_its_old_name_will_do(monkeypatch):
    monkeypatch.delattr(torch.amp, "GradScaler", raising=False)
    made = {}
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda **facts: made.update(facts))
    loss_scale.make_scaler("cuda", 244)
    assert made == {"init_scale": 65536.0, "growth_interval": 244}
