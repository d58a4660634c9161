"""Validation: what is held out, the loss as worked out by hand, and that looking changes nothing."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from lib_sdtrain import train
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Validation
from lib_sdtrain.train import boards as boards_module
from lib_sdtrain.train.validation import Validator, strata, told_apart
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_ema import result_of
from tests.train.test_step import alpha_bar, make_trainer


def test_timesteps_are_the_middles_of_equal_parts():
    assert strata(4, 1000) == [125, 375, 625, 875]
    assert strata(1, 1000) == [500]
    assert strata(8, 1000)[0] == 62


def test_concepts_of_one_name_are_told_apart():
    assert told_apart(["cat", "dog"]) == ["cat", "dog"]
    assert told_apart(["subject", "subject", "subject"]) == ["subject", "subject 2", "subject 3"]
    assert told_apart(["a", "a", "a 2", ""]) == ["a", "a 3", "a 2", ""]


def test_a_share_is_held_out_and_stays_out(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 10)
    plan = make_trainer(run_settings(tiny_checkpoint, folder, validation__fraction=0.3), tmp_path).plan
    kept, held = (({picture.path.name for picture in pictures}) for pictures in
                  (plan.materials[0].pictures, plan.held_out[0].pictures))
    assert (len(kept), len(held)) == (7, 3)
    assert kept | held == {f"{number}.png" for number in range(10)}
    (folder / min(kept)).unlink()
    again = make_trainer(run_settings(tiny_checkpoint, folder, validation__fraction=0.3), tmp_path).plan
    assert {picture.path.name for picture in again.held_out[0].pictures} == held


def test_the_loss_is_the_plain_error_over_pictures_and_timesteps(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 4), validation__fraction=0.5, validation__timesteps=3,
        train__batch_size=2, loss__min_snr_gamma=5.0, loss__noise_offset=0.3, data__flip_p=1.0,
        data__caption_dropout_rate=1.0,
    )
    trainer = make_trainer(settings, tmp_path)
    validator = Validator(trainer.plan, trainer)
    for module in trainer.model.parts.values():
        module.float()
    before = (trainer.step, trainer.samples)
    seen = [event for event in validator.run(CancelToken()) if isinstance(event, Validation)]
    assert [event.name for event in seen] == ["validation", "training"]
    again = [event.loss for event in validator.run(CancelToken()) if isinstance(event, Validation)]
    assert again == [event.loss for event in seen]
    assert before == (trainer.step, trainer.samples)
    losses = []
    words = trainer.prompts.encode(["a photo of sks dog"]).context
    for number, draw in enumerate(validator.held[0][1]):
        assert not draw.flip
        for part, t in enumerate((166, 500, 833)):
            one = trainer.batch_of([draw.__class__(**{**vars(draw), "index": 3 * number + part})], "validation",
                                   type(settings.loss)())
            a, x, n = alpha_bar(t), one.latents[0], one.noise[0]
            noisy = (a**0.5 * x + (1 - a) ** 0.5 * n)[None]
            said = trainer.model.unet(noisy, torch.tensor([t]), words).sample[0]
            losses.append(functional.mse_loss(said, n).item())
    assert seen[0].loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert len(losses) == 6


def test_validating_changes_nothing_and_is_told(tiny_checkpoint, picture_folder, tmp_path):
    folder, own = picture_folder("i", 2), picture_folder("held", 2)
    plain = run_settings(tiny_checkpoint, folder, train__length=2)
    expected = result_of(finish(train(plain, run_dir=tmp_path / "plain"))).read_bytes()
    settings = run_settings(
        tiny_checkpoint, folder, train__length=2, validation__dir=str(own), validation__every=1,
        validation__timesteps=2,
    )
    seen = finish(train(settings, run_dir=tmp_path / "run"))
    assert result_of(seen).read_bytes() == expected
    told = [(event.step, event.name) for event in of_kind(seen, Validation)]
    assert told == [(step, name) for step in (0, 1, 2) for name in ("validation", "training")]
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert sum(line["type"] == "validation" for line in lines) == 6
    assert isinstance(seen[-1], Finished)


def test_each_concept_has_a_loss_of_its_own_beside_that_of_all(tiny_checkpoint, picture_folder, tmp_path):
    concepts = [{"instance_dir": str(picture_folder(name, count)), "instance_prompt": "a photo of sks dog"}
                for name, count in (("i", 4), ("j", 6))]  # fmt: skip
    settings = run_settings(
        tiny_checkpoint, tmp_path, data__concepts=concepts, train__length=1, validation__fraction=0.5,
        validation__timesteps=2,
    )
    seen = of_kind(finish(train(settings, run_dir=tmp_path / "run")), Validation)
    names = ["validation: subject", "validation: subject 2", "validation", "training"]
    assert [event.name for event in seen] == 2 * names
    first, second, whole = (event.loss for event in seen[:3])
    assert whole == pytest.approx((2 * first + 3 * second) / 5)
    assert first != second


@pytest.mark.parametrize(("changes", "wanted"), [
    ({"validation__every": 5}, "there is nothing to validate on"),
    ({"validation__dir": "nowhere"}, "there is no folder"),
    ({"validation__dir": ".", "validation__fraction": 0.1}, "a folder and a share are given"),
    ({"validation__fraction": 0.5}, "nothing is left to train of 1 pictures"),
    ({"log__wandb": True}, "the package wandb is not installed"),
])
def test_what_is_wrong_is_said(tiny_checkpoint, picture_folder, tmp_path, monkeypatch, changes, wanted):
    monkeypatch.setattr(boards_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=wanted):
        finish(train(run_settings(tiny_checkpoint, picture_folder("i", 1), **changes), run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Board:
    """Stands in for either package: takes down what it is told."""

    def __init__(self, *_args, **more):
        self.told, self.closed, self.more = [], False, more

    def add_scalar(self, name, value, step):
        self.told.append((name, step))

    def log(self, values, step):
        self.told += [(name, step) for name in values]

    def close(self):
        self.closed = True

    finish = close


def test_the_curves_go_to_the_boards_that_are_asked_for(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    made = []

    def make(*args, **more):
        made.append(Board(*args, **more))
        return made[-1]

    monkeypatch.setattr(boards_module, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=make))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=make))
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 3), train__length=1, validation__fraction=0.3, validation__timesteps=1,
        log__tensorboard=True, log__wandb=True,
    )
    finish(train(settings, run_dir=tmp_path / "run"))
    assert len(made) == 2
    for board in made:
        assert {("loss", 1), ("learning_rate", 1), ("loss/validation", 0), ("loss/validation", 1)} <= set(board.told)
        assert board.closed
    assert made[1].more["dir"] == str(Path(tmp_path / "run"))
