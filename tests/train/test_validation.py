"""Validation: what is held out, the loss as worked out by hand, and that looking changes nothing."""
from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lib_sdtrain import train
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Finished, Phase, Validation
from lib_sdtrain.train import boards as boards_module
from lib_sdtrain.train.held_out import apportioned
from lib_sdtrain.train.resume import resume, trained_on
from lib_sdtrain.train.run_dir import RunDir
from lib_sdtrain.train.state import newest_state
from lib_sdtrain.train.validation import Validator, noise_seed, strata, told_apart
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_ema import result_of
from tests.train.test_presets import planned
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


def test_a_count_is_spread_in_proportion_to_the_pictures():
    """Worked by hand: shares, rounded down, then one more to the largest remainders."""
    assert apportioned([10], 3, Problems()) == [3]
    assert apportioned([60, 30, 10], 10, Problems()) == [6, 3, 1]
    assert apportioned([50, 30, 20], 7, Problems()) == [4, 2, 1]  # 3.5, 2.1, 1.4: the first has the largest remainder
    assert apportioned([7_024, 1_630, 18_519], 2_048, Problems()) == [529, 123, 1_396]  # 529.40, 122.85, 1395.75
    assert apportioned([97, 2, 2], 3, Problems()) == [1, 1, 1]  # 2.88, 0.06, 0.06: one of each comes before proportion
    assert apportioned([97, 2, 1], 5, Problems()) == [4, 1, 0]  # one alone is trained on
    assert apportioned([10, 10, 10], 2, Problems()) == [1, 1, 0]  # too few for one of each
    assert apportioned([2, 2, 5], 6, Problems()) == [1, 1, 4]  # all but one to train on
    assert apportioned([0, 4], 2, Problems()) == [0, 2]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 200))
def test_a_count_is_kept_whatever_the_concepts_are(there, count):
    problems = Problems()
    found = apportioned(there, count, problems)
    assert bool(problems.found) == (count > sum(max(0, own - 1) for own in there))
    if problems.found:
        return
    assert sum(found) == count
    assert all(0 <= out <= max(0, own - 1) for out, own in zip(found, there, strict=True))
    several = [out for out, own in zip(found, there, strict=True) if own > 1]
    assert all(several) or count < len(several)
    whole = sum(there)
    if all(whole <= count * own <= whole * (own - 1) for own in there):  # neither of the two limits is met
        assert all(abs(out - count * own / whole) < 1 for out, own in zip(found, there, strict=True))


def test_fewer_pictures_that_are_held_out_are_among_more(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 8)
    share = held_names(tiny_checkpoint, folder, tmp_path, fraction=0.5)
    sets = [held_names(tiny_checkpoint, folder, tmp_path, count=count) for count in range(1, 8)]
    assert [len(names) for names in sets] == [1, 2, 3, 4, 5, 6, 7]
    assert all(fewer < more for fewer, more in pairwise(sets))
    assert sets[3] == share
    assert sets[1] != held_names(tiny_checkpoint, folder, tmp_path, count=2, seed=1)


def held_names(checkpoint, folder, tmp_path, seed=0, **chosen):
    own = {f"validation__{name}": value for name, value in chosen.items()}
    (plan,) = planned(run_settings(checkpoint, folder, train__seed=seed, **own), tmp_path)
    names = {picture.path.name for picture in plan.held_out[0].pictures}
    assert not names & {picture.path.name for picture in plan.materials[0].pictures}
    return names


def test_a_run_goes_on_with_the_pictures_that_it_held_out(tiny_checkpoint, picture_folder, tmp_path):
    own = run_settings(tiny_checkpoint, picture_folder("i", 6), train__length=3, validation__count=2,
                       validation__every=1, validation__timesteps=2)  # fmt: skip
    straight = finish(train(own, run_dir=tmp_path / "straight"))
    token = CancelToken()
    cut = finish(train(own, token, tmp_path / "cut"), token, stop_at=2)
    going_on = finish(resume(tmp_path / "cut"))
    losses = [(event.step, event.name, event.loss) for event in of_kind(straight, Validation)]
    assert [(event.step, event.name, event.loss) for event in of_kind([*cut, *going_on], Validation)] == losses
    assert result_of(going_on).read_bytes() == result_of(straight).read_bytes()
    with pytest.raises(UserError, match=r"validation\.count: cannot change while a run goes on"):
        finish(resume(tmp_path / "cut", {"validation.count": 3}))


@pytest.mark.parametrize("changed", ["seed", "more pictures"])
def test_a_run_that_goes_on_holds_out_nothing_that_it_was_trained_on(
    tiny_checkpoint, picture_folder, tmp_path, changed
):
    folder = picture_folder("i", 12)
    own = run_settings(tiny_checkpoint, folder, train__length=2, validation__fraction=0.25)
    token = CancelToken()
    finish(train(own, token, tmp_path / "cut"), token, stop_at=1)
    before = newest_state(tmp_path / "cut" / "state")
    seen = trained_on(before)
    assert len(seen) == 9
    if changed == "more pictures":
        for path in picture_folder("more", 12).iterdir():
            path.rename(folder / f"more-{path.name}")
    (plan,) = planned(replace(own, train=replace(own.train, seed=int(changed == "seed"))), tmp_path, trained=seen)
    held = {picture.sha256 for picture in plan.held_out[0].pictures}
    assert len(held) == {"seed": 3, "more pictures": 6}[changed]
    assert not held & seen
    finish(resume(tmp_path / "cut", {"train.seed": 1} if changed == "seed" else {}))
    trained = trained_on(newest_state(tmp_path / "cut" / "state"))
    assert not trained & {picture.sha256 for picture in plan.held_out[0].pictures}


def test_no_copy_of_what_is_held_out_is_trained_on(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 6)
    for path in list(folder.iterdir())[:5]:
        shutil.copy(path, folder / f"copy-{path.name}")
    for count in range(2, 8):
        (plan,) = planned(run_settings(tiny_checkpoint, folder, validation__count=count), tmp_path)
        held, trained = ([picture.sha256 for picture in pictures] for pictures in
                         (plan.held_out[0].pictures, plan.materials[0].pictures))
        assert count - 1 <= len(held) <= count
        assert not set(held) & set(trained)
        assert len(held) + len(trained) == 11


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
            one = trainer.batch_of([draw.__class__(**{**vars(draw), "index": 3 * number + part})],
                                   noise_seed(settings), type(settings.loss)())
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


def losses_of(seen, name="validation"):
    return [event.loss for event in of_kind(seen, Validation) if event.name == name]


@pytest.fixture
def averaging(tiny_checkpoint, picture_folder, tmp_path):
    """Trains three steps with an average and two pictures held out; the events."""
    folder = picture_folder("i", 4)

    def trained(name: str, **changes):
        own = {"train__length": 3, "ema__decay": 0.8, "train__learning_rate": 1e-2, "validation__count": 2,
               "validation__timesteps": 2, "validation__every": 1, **changes}  # fmt: skip
        return finish(train(run_settings(tiny_checkpoint, folder, **own), run_dir=tmp_path / name))

    return trained


@pytest.mark.parametrize("where", [
    {"save__ema": "keep"}, {"save__ema": "keep", "ema__on_cpu": True},
    {"save__ema": "drop", "save__also": [{"suffix": "_ema", "ema": "keep"}]},
    {"save__ema": "drop", "save__also": [{"suffix": "_ema", "ema": "use"}]},
])  # fmt: skip
def test_both_sets_of_weights_are_measured_where_the_files_hold_both(averaging, where):
    """Oracle: a run that saves the last weights alone, and one that saves the average."""
    unet = {"method__train_text_encoder": False}
    live, average = averaging("live", save__ema="drop", **unet), averaging("average", save__ema="use", **unet)
    both = averaging("both", **where, **unet)
    told = [(event.step, event.name) for event in of_kind(both, Validation)]
    assert told == [(step, name) for step in range(4) for name in ("validation", "average", "training")]
    assert losses_of(both) == losses_of(live)
    assert losses_of(both, "average") == losses_of(average)
    assert losses_of(both)[1:] != losses_of(both, "average")[1:]
    assert losses_of(both, "training") == losses_of(live, "training")
    phases = [event for event in of_kind(both, Phase) if event.name == "validating"]
    assert [(event.done, event.total) for event in phases] == 4 * [(2, 6), (4, 6), (6, 6)]
    if where["save__ema"] == "drop":
        assert result_of(both).read_bytes() == result_of(live).read_bytes()


@pytest.mark.parametrize("where", [
    {"save__ema": "use"}, {"save__ema": "drop"}, {"save__ema": "keep", "ema__decay": None},
    {"save__ema": "drop", "method__kind": "lora", "method__rank": 2},
    {"save__ema": "use", "save__also": [{"suffix": "_ema", "ema": "keep"}]},
])  # fmt: skip
def test_an_average_that_no_file_holds_beside_the_weights_has_no_curve(averaging, where):
    assert losses_of(averaging("run", **where), "average") == []


def test_a_file_keeps_the_average_of_the_unet_alone_and_so_it_is_measured(tiny_checkpoint, picture_folder, tmp_path):
    own = run_settings(
        tiny_checkpoint, picture_folder("i", 4), ema__decay=0.8, save__ema="keep", validation__count=2,
        validation__timesteps=2, method__train_text_encoder=True, train__learning_rate=1e-2,
    )
    trainer = make_trainer(own, tmp_path)
    for module in trainer.model.parts.values():
        module.float()
    trainer.train_step()
    before = {name: value.clone() for name, value in trainer.average.parameters.items()}
    validator = Validator(trainer.plan, trainer)
    measured = {event.name: event.loss for event in of_kind(list(validator.run(CancelToken())), Validation)}
    assert all(torch.equal(value, before[name]) for name, value in trainer.average.parameters.items())
    with torch.no_grad():
        for name, value in trainer.average.parameters.items():
            if name.startswith("unet."):
                value.copy_(trainer.average.weights[name])
    assert any(not torch.equal(value, trainer.average.weights[name])
               for name, value in trainer.average.parameters.items())  # those of the text encoder
    again = {event.name: event.loss for event in of_kind(list(validator.run(CancelToken())), Validation)}
    assert measured["average"] == again["validation"] != measured["validation"]


@pytest.mark.parametrize(("step", "last"), [
    (1, "validation: one"), (1, "validation"), (1, "average"), (1, "training"), (0, "validation"),
])  # fmt: skip
def test_what_a_stop_kept_from_being_measured_is_measured_when_the_run_goes_on(
    tiny_checkpoint, picture_folder, tmp_path, step, last
):
    concepts = [{"name": name, "instance_dir": str(picture_folder(name, 3)), "instance_prompt": "a photo of sks dog"}
                for name in ("one", "two")]  # fmt: skip
    own = run_settings(tiny_checkpoint, tmp_path, data__concepts=concepts, train__length=2, validation__count=2,
                       validation__timesteps=1, validation__every=1, ema__decay=0.8, save__ema="keep")  # fmt: skip
    straight = finish(train(own, run_dir=tmp_path / "straight"))
    token, seen = CancelToken(), []
    for event in train(own, token, tmp_path / "cut"):
        seen.append(event)
        if isinstance(event, Validation) and (event.step, event.name) == (step, last):
            token.stop_and_save()
    seen += finish(resume(tmp_path / "cut"))
    told = [(event.step, event.name, event.loss) for event in of_kind(seen, Validation)]
    assert sorted(told) == sorted((event.step, event.name, event.loss) for event in of_kind(straight, Validation))


def test_what_a_crash_has_undone_was_not_measured(tmp_path):
    run = RunDir(tmp_path)

    def log(*told):
        with run.events.open("a", encoding="utf-8") as events:
            events.writelines(json.dumps({"type": kind, "step": step, **more}) + "\n" for kind, step, more in told)

    log(("started", 0, {}), *(("validation", 10, {"name": name, "loss": 1.0}) for name in ("validation", "training")))
    assert run.validated(10) == {"validation", "training"}
    log(("started", 10, {}))
    assert run.validated(10) == {"validation", "training"}
    log(("started", 5, {}))
    assert run.validated(10) == set()
    log(("validation", 10, {"name": "validation", "loss": 1.0}), ("stopped", 10, {"saved": True}))
    assert run.validated(10) == {"validation"}


def test_the_average_of_all_concepts_is_one_curve(averaging, picture_folder, tmp_path):
    concepts = [{"name": name, "instance_dir": str(picture_folder(name, 3)), "instance_prompt": "a photo of sks dog"}
                for name in ("one", "two")]  # fmt: skip
    seen = averaging("run", save__ema="keep", data__concepts=concepts, validation__every=None)
    names = ["validation: one", "validation: two", "validation", "average", "training"]
    assert [event.name for event in of_kind(seen, Validation)] == 2 * names


@pytest.mark.parametrize(("changes", "wanted"), [
    ({"validation__every": 5}, "there is nothing to validate on"),
    ({"validation__dir": "nowhere"}, "there is no folder"),
    ({"validation__dir": ".", "validation__fraction": 0.1}, "a folder and a share are given"),
    ({"validation__fraction": 0.5}, "nothing is left to train of 1 pictures"),
    ({"validation__count": 2, "validation__fraction": 0.1}, "validation.count: a share and a count are given"),
    ({"validation__count": 2, "validation__fraction": 0.1, "validation__dir": "."},
     "validation.count: a folder and a share and a count are given"),
    ({"validation__count": 1}, "validation.count: 1 pictures cannot be kept .* there are 1, .* at most 0, or give"),
    ({"validation__count": -1}, "validation.count: -1 is too small"),
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
        log__tensorboard=True, log__wandb=True, ema__decay=0.9, save__ema="keep",
    )
    finish(train(settings, run_dir=tmp_path / "run"))
    assert len(made) == 2
    for board in made:
        assert {("loss", 1), ("learning_rate", 1), ("loss/validation", 0), ("loss/validation", 1)} <= set(board.told)
        assert {("loss/average", 0), ("loss/average", 1), ("loss/training", 1)} <= set(board.told)
        assert board.closed
    assert made[1].more["dir"] == str(Path(tmp_path / "run"))
