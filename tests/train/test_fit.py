"""Settings that make a run fit into so many gigabytes."""
from __future__ import annotations

from dataclasses import replace

import pytest

from lib_sdtrain.api.engine import Place
from lib_sdtrain.api.training import TrainingEngine
from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.train.checks import check_settings
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.memory import fit as fit_module
from lib_sdtrain.train.memory.fit import GB, REMEDIES, RESERVE, fit, lines_of, set_by_stages
from lib_sdtrain.train.memory.need import need
from lib_sdtrain.train.plan import make_plan
from tests.hollow import write_hollow
from tests.train.runs import run_settings

SIZES = (4, 8, 12, 24)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Checkpoints of full size, which are only planned with."""
    folder = tmp_path_factory.mktemp("hollow")
    return {name: write_hollow(folder / f"{name}.safetensors", name) for name in ("sd1", "sdxl")}


@pytest.fixture
def planned(published, picture_folder, tmp_path):
    """The plan of a run on a GPU at the family's own resolution."""

    folder = picture_folder("some", 2)

    def plan(name="sd1", **changes):
        side = {"sd1": 512, "sdxl": 1024}[name]
        own = {"data__resolution": str(side), "train__mixed_precision": "fp16", "train__learning_rate": 1e-6, **changes}
        settings = run_settings(published[name], folder, **own)
        return result_of(make_plan(settings, tmp_path, "cuda", CancelToken()), print)

    return plan


def total(plan, changes=()):
    changed = replace(plan, settings=fit_module._with(plan.settings, dict(changes)))
    return need(changed, draws_of(changed), [{"size": plan.target, "images": 2, "encoded": 2}])["total"]


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("own", [{}, {"train__batch_size": 4, "ema__decay": 0.999}, {"method__kind": "lora"}])
def test_it_fits_when_it_says_so_and_nothing_is_changed_in_vain(planned, name, own):
    plan = planned(name, **own)
    for size in SIZES:
        found, room = fit([plan], size), size * GB - RESERVE
        assert found.before == total(plan)
        assert found.after == total(plan, found.changes)
        assert found.fits == (found.after <= room)
        assert bool(found.changes) == bool(found.reasons) == (found.before > room)
        used = [remedy for remedy in REMEDIES if remedy.words in found.reasons]
        for remedy in used if found.fits else ():
            rest = fit_module._changes(plan, [other for other in used if other is not remedy], ())
            assert total(plan, rest) > room, f"{remedy.words} is not needed for {size} GB"


def test_the_cards_that_people_have(planned):
    """A DreamBooth of SD1.5's UNet and text encoder, and SDXL's UNet, at their own sizes."""
    plan = planned()
    assert fit([plan], 24).changes == {}
    for size in (8, 11, 12):
        found = fit([plan], size)
        assert found.fits
        assert "method.kind" not in found.changes                            # the whole model all the same
        assert "method.train_text_encoder" not in found.changes
    found = fit([planned("sdxl", method__train_text_encoder=False)], 24)
    assert found.fits
    assert found.changes["train.step_in_backward"] is True
    assert fit([planned("sdxl", method__kind="lora")], 12).fits


def test_a_batch_keeps_its_size(planned):
    changes = fit([planned(train__batch_size=4, train__gradient_accumulation_steps=2)], 16).changes
    assert (changes["train.batch_size"], changes["train.gradient_accumulation_steps"]) == (1, 8)


def test_what_the_user_has_set_stays(planned):
    plan = planned()
    for kept in ("train.optimizer", "train.gradient_checkpointing"):
        assert kept in fit([plan], 8).changes
        assert kept not in fit([plan], 8, [kept]).changes
    assert fit([plan], 12, ["train.optimizer"]).fits


@pytest.mark.parametrize("own", [
    {"train__optimizer": "prodigy"}, {"train__optimizer": "torch.optim.SGD"}, {"train__gradient_accumulation_steps": 4},
    {"method__kind": "embedding", "embedding__name": "sks", "embedding__init_words": "dog"},
    {"train__token_embedding_words": "sks", "train__token_embedding_lr": 1e-3, "train__batch_size": 3},
    {"method__train_unet": False}, {"train__optimizer": "schedule_free"},
])  # fmt: skip
def test_whatever_it_chooses_can_be_trained(planned, own):
    plan = planned(**own)
    for size in (3, 7):
        problems = Problems()
        check_settings(fit_module._with(plan.settings, fit([plan], size).changes), "cuda", problems)
        assert not problems.found


def test_what_later_stages_set_is_not_counted_on(planned):
    stages = [{"train": {"batch_size": 2}, "train.gradient_checkpointing": False}]
    assert set_by_stages(planned(stages=stages).settings) == ["train.batch_size", "train.gradient_checkpointing"]


def test_a_lora_gets_its_own_learning_rate(planned):
    changes = fit([planned("sdxl")], 12).changes
    assert (changes["method.kind"], changes["train.learning_rate"]) == ("lora", 1e-4)
    assert "train.scale_lr" not in changes
    assert fit([planned("sdxl", train__scale_lr="pictures")], 12).changes["train.scale_lr"] == "none"


def test_it_says_what_it_does(planned):
    plan = planned()
    assert "as it is" in next(lines_of(fit([plan], 48), 48))
    first, *rest = lines_of(fit([plan], 11), 11)
    assert " GB instead of " in first
    assert any("8 bits" in line for line in rest)
    assert "does not fit into 1 GB" in next(lines_of(fit([plan], 1), 1))


def test_the_command_fits_what_it_starts(published, picture_folder, capsys):
    command = [
        "train", "--dry-run", "--set", f"model.checkpoint={published['sd1']}", "--set", "data.resolution=512", "--set",
        f"data.concepts.0.instance_dir={picture_folder('few', 2)}", "--set", "data.concepts.0.instance_prompt=a cat",
        "--set", "data.concepts.0.name=cat",
    ]  # fmt: skip
    assert main([*command, "--fit", "12"]) == 0
    told = capsys.readouterr()
    assert "    (--fit 12)" in told.out
    assert "GB instead of" in told.err
    assert main([*command, "--fit", "1"]) == 2
    assert "does not fit into 1 GB" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--fit", "none"])
    assert "'none' is no number of gigabytes, as in 8" in capsys.readouterr().err


def test_the_page_and_programs_are_told_the_same(published, picture_folder, tmp_path):
    settings = run_settings(published["sd1"], picture_folder("few", 2), data__resolution="512")
    engine, place = TrainingEngine(), Place(tmp_path, "cuda")
    told = engine.fit(settings, place, 11)
    assert told["fits"]
    assert told["memory_bytes"] < told["memory_before"]
    assert "GB instead of" in told["lines"][0]
    changed = fit_module._with(settings, told["changes"])
    assert engine.fit(changed, place, 11)["changes"] == {}                   # what it says is enough
    small = engine.fit(run_settings("toybox", picture_folder("more", 2)), Place(tmp_path, "cpu"), None)
    assert small["fits"]
    assert small["gigabytes"] > 1                                            # of this machine
