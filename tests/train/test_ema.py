"""The moving average: its numbers, what is saved of it, and that runs go on from it."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Finished, Notice, Stopped
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.keys import ema_key, part_rows, unet_rows
from lib_sdtrain.settings.run_method import EmaSettings
from lib_sdtrain.train.child import write_child
from lib_sdtrain.train.ema import check_average, decay_at
from lib_sdtrain.train.forecast import checkpoint_bytes
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.state import newest_state
from tests.model.averages import average_of, lightning, module_names, shadow
from tests.tiny import tiny_family, write_tiny
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_step import make_trainer

UNET, EMA = "model.diffusion_model.", "model_ema.diffusion_model"


def result_of(seen) -> Path:
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"])


def test_the_warm_up_of_ldm_reaches_its_decay_where_published():
    for decay, reached in ((0.995, 1790), (0.9999, 89_990)):
        settings = EmaSettings(decay=decay)
        assert decay_at(reached, settings) == pytest.approx(decay, abs=1e-12)
        assert decay_at(reached - 1, settings) < decay
        assert decay_at(reached + 10, settings) == decay
    assert decay_at(1, EmaSettings(decay=0.995)) == 2 / 11


@pytest.mark.parametrize(("power", "decay", "reached"), [
    # diffusers' documentation of its warm-up; update n is the one after n - 1 steps
    (2 / 3, 0.999, 31_622), (2 / 3, 0.9999, 10**6), (3 / 4, 0.999, 10_000), (3 / 4, 0.9999, 215_443),
])
def test_the_power_form_reaches_its_decay_where_published(power, decay, reached):
    settings = EmaSettings(decay=1.0, warm_up="power", power=power)
    assert decay_at(reached, settings) == pytest.approx(decay, rel=1e-7)
    assert decay_at(reached + 7, settings, after=7) == decay_at(reached, settings)
    assert decay_at(1, settings) == 0.0
    assert decay_at(7, settings, after=7) == 0.0
    assert decay_at(4, replace(settings, inv_gamma=3.0)) == pytest.approx(1 - 2**-power)


def test_without_warm_up_the_decay_is_always_the_same():
    assert [decay_at(n, EmaSettings(decay=0.9, warm_up="none")) for n in (1, 2, 1000)] == [0.9] * 3


def test_the_average_is_the_one_worked_out_by_hand(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 2), ema__decay=0.5, train__learning_rate=1e-2)
    trainer = make_trainer(settings, tmp_path)
    for part in trainer.parts.values():
        part.float()
    name = "unet.conv_in.weight"
    wanted = trainer.average.parameters[name].detach().double().clone()
    for update in (1, 2, 3, 4):
        trainer.train_step()
        decay = min(0.5, (1 + update) / (10 + update))
        wanted = decay * wanted + (1 - decay) * trainer.average.parameters[name].detach().double()
    torch.testing.assert_close(trainer.average.weights[name].double(), wanted, rtol=1e-5, atol=1e-7)
    live = trainer.average.parameters[name].detach().clone()
    with trainer.shown_weights():
        assert torch.equal(trainer.model.unet.conv_in.weight, trainer.average.weights[name])
    assert torch.equal(trainer.model.unet.conv_in.weight, live)


def as_weights(trainer, steps: int) -> list[bool]:
    """After which steps the average is the weights themselves."""
    for part in trainer.parts.values():
        part.float()
    name, found = "unet.conv_in.weight", []
    for _ in range(steps):
        trainer.train_step()
        found.append(torch.equal(trainer.average.weights[name], trainer.average.parameters[name]))
    return found


@pytest.mark.parametrize(("after", "same"), [
    (1, [0, 0, 0, 0, 0, 0]), (2, [0, 1, 0, 0, 0, 0]), ("10 samples", [0, 1, 0, 1, 0, 0]),
])
def test_only_every_so_many_steps_and_only_after_so_many_steps(
    tiny_checkpoint, picture_folder, tmp_path, after, same
):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), ema__decay=0.9, ema__every=2, ema__after=after, train__batch_size=2,
        train__length=6,
    )
    trainer = make_trainer(settings, tmp_path)
    assert as_weights(trainer, 6) == list(map(bool, same))
    assert trainer.average.updates == 3


def test_an_average_that_goes_on_waits_as_long_as_a_new_one(tiny_checkpoint, picture_folder, tmp_path):
    """However many updates it had before; and without waiting it goes on where it was."""
    folder = picture_folder("i", 2)
    first = run_settings(
        tiny_checkpoint, folder, train__length=3, ema__decay=0.9, save__ema="keep", save__dtype="fp32"
    )
    file = result_of(finish(train(first, run_dir=tmp_path / "one")))
    for after, same in ((0, [False] * 3), (2, [True, True, False])):
        trainer = make_trainer(
            run_settings(file, folder, ema__decay=0.9, save__ema="keep", ema__after=after), tmp_path
        )
        assert trainer.average.updates == 3
        assert as_weights(trainer, 3) == same
        assert trainer.average.updates == 6
    trainer.average.load(trainer.average.parameters, 0)  # begun anew while a run stood still
    assert as_weights(trainer, 3) == [True, True, False]


@pytest.mark.parametrize(("length", "every", "said"), [
    (4, 5, "5 steps"), ("8 samples", 5, "5 steps"), (4, "9 samples", "9 samples"), ("2 epochs", "3 epochs", "3 epochs"),
    ("2 epochs", 3, "3 steps"), (2, "3 epochs", "3 epochs"),
])
def test_an_average_that_would_take_nothing_in_is_refused(
    tiny_checkpoint, picture_folder, tmp_path, length, every, said
):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__length=length, train__batch_size=2, ema__decay=0.9,
        ema__every=every,
    )
    with pytest.raises(UserError, match=rf"^ema\.every: every {said} .* longer than the run") as caught:
        finish(train(settings, run_dir=tmp_path / "run"))
    assert len(caught.value.problems) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("length", "every"), [
    (4, 4), ("8 samples", 4), (4, "8 samples"), ("1 epochs", "2 samples"), (1, "1 epochs")])
@pytest.mark.parametrize("epoch", [None, 2])
def test_an_average_that_takes_the_last_weights_in_is_not(tiny_checkpoint, picture_folder, length, every, epoch):
    problems = Problems()
    check_average(run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__length=length, train__batch_size=2, ema__decay=0.9,
        ema__every=every,
    ), problems, epoch)
    assert problems.found == []


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_stopped_run_goes_on_with_its_average(tiny_checkpoint, picture_folder, tmp_path, kind):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__length=3, ema__decay=0.8, method__kind=kind, method__rank=2
    )
    straight = result_of(finish(train(settings, run_dir=tmp_path / "straight"))).read_bytes()
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    assert result_of(finish(resume(tmp_path / "cut"))).read_bytes() == straight


def trained(checkpoint: Path, folder: Path, tmp_path: Path, **changes):
    """A trainer after two steps."""
    trainer = make_trainer(run_settings(checkpoint, folder, ema__decay=0.8, **changes), tmp_path)
    for part in trainer.model.parts.values():
        part.float()
    for _ in range(2):
        trainer.train_step()
    return trainer


def test_an_average_in_main_memory_is_the_same(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 2)
    one, two = (trained(tiny_checkpoint, folder, tmp_path, ema__on_cpu=on).average for on in (False, True))
    assert all(torch.equal(value, two.weights[name]) for name, value in one.weights.items())
    assert any(not torch.equal(value, one.parameters[name]) for name, value in one.weights.items())


def test_sdxl_has_an_average_too(picture_folder, tmp_path):
    checkpoint = write_tiny(tmp_path / "xl.safetensors", "sdxl")
    trainer = trained(checkpoint, picture_folder("i", 2), tmp_path, save__ema="keep")
    write_child(trainer.plan, trainer, tmp_path / "child.safetensors", {})
    child = open_checkpoint(tmp_path / "child.safetensors")
    assert child.parts["ema"]
    again = make_trainer(replace(trainer.settings, model=replace(trainer.settings.model, checkpoint=str(child.path))),
                         tmp_path).average
    unet = {name: value for name, value in trainer.average.weights.items() if name.startswith("unet.")}
    assert len(unet) > 100
    assert all(torch.equal(value, again.weights[name]) for name, value in unet.items())


def test_the_three_forms_that_bpmodel_published(tiny_checkpoint, picture_folder, tmp_path):
    trainer = trained(tiny_checkpoint, picture_folder("i", 2), tmp_path)
    forms = {
        "plain": {"ema": "drop"},
        "no-vae": {"ema": "drop", "vae": False},
        "with_vae_te": {"ema": "use", "dtype": "fp16"},
        "ema": {"ema": "keep", "dtype": "fp32"},
        "unet": {"ema": "drop", "text_encoder": False, "vae": False},
    }
    files, before = {}, trainer.settings
    for name, own in forms.items():
        trainer.settings = replace(before, save=replace(before.save, **own))
        plan = replace(trainer.plan, settings=trainer.settings)
        write_child(plan, trainer, tmp_path / f"{name}.safetensors", {})
        files[name] = load_file(tmp_path / f"{name}.safetensors")
        assert checkpoint_bytes(plan) == sum(value.nbytes for value in files[name].values())
    parent = load_file(tiny_checkpoint)
    plain, whole = files["plain"], files["ema"]
    assert plain.keys() == parent.keys()
    assert {key.split(".")[0] for key in plain.keys() - files["no-vae"].keys()} == {"first_stage_model"}
    assert {key.split(".")[0] for key in files["unet"]} == {"model", "alphas_cumprod"}
    assert {value.dtype for key, value in files["with_vae_te"].items() if "." in key} == {torch.float16, torch.int64}
    # the third: the last weights, and the average of the UNet under LDM's names, without dots
    averages = {key for key in whole if key.startswith(EMA)}
    assert whole.keys() - parent.keys() == averages | {"model_ema.decay", "model_ema.num_updates"}
    assert averages == {EMA + key.removeprefix(UNET).replace(".", "") for key in parent if key.startswith(UNET)}
    assert float(whole["model_ema.decay"]) == pytest.approx(0.8)
    assert int(whole["model_ema.num_updates"]) == 2
    for key, value in plain.items():
        assert torch.equal(whole[key].to(value.dtype), value)
        if key.startswith(UNET):
            average = whole[EMA + key.removeprefix(UNET).replace(".", "")]
            assert average.dtype == torch.float32
            assert torch.equal(average.half(), files["with_vae_te"][key])


def test_a_file_with_its_average_is_gone_on_from(tiny_checkpoint, picture_folder, tmp_path):
    """Two runs of two steps keep the average going as one run would: it does not begin anew."""
    folder = picture_folder("i", 2)
    first = run_settings(
        tiny_checkpoint, folder, train__length=2, ema__decay=0.8, save__ema="keep", save__dtype="fp32"
    )
    file = result_of(finish(train(first, run_dir=tmp_path / "one")))
    second = run_settings(file, folder, train__length=2, ema__decay=0.8, save__ema="keep")
    trainer = make_trainer(second, tmp_path)
    assert trainer.average.updates == 2
    whole = load_file(file)
    key = f"{EMA}input_blocks00weight"
    assert torch.equal(trainer.average.weights["unet.conv_in.weight"], whole[key])
    assert not torch.equal(whole[key], whole[f"{UNET}input_blocks.0.0.weight"])
    seen = finish(train(second, run_dir=tmp_path / "two"))
    assert int(load_file(result_of(seen))["model_ema.num_updates"]) == 4
    assert any("this run's average goes on" in notice.text for notice in of_kind(seen, Notice))


@pytest.mark.parametrize("by", ["naifu", "naifu's own", "scal-sdt"])
def test_the_average_of_another_trainer_is_gone_on_from(by, tiny_checkpoint, picture_folder, tmp_path):
    tensors, family = load_file(tiny_checkpoint), tiny_family()
    average = average_of(tensors)
    if by == "naifu":
        document = lightning(tensors, model_ema=shadow(tensors, family))
    elif by == "naifu's own":
        document = lightning(module_names(tensors, family), model_ema=shadow(tensors, family))
        tensors = {row.key: tensors[row.key] for rows in part_rows(family).values() for row in rows}
    else:
        named = {row.names[0]: average[row.key] for row in unet_rows(family.unet)}
        document = lightning({**tensors, "unet_ema": {"decay": 0.9, "num_updates": 41, "state_dict": named}})
    torch.save(document, tmp_path / "theirs.ckpt")
    (tmp_path / "theirs.yaml").write_bytes(tiny_checkpoint.with_suffix(".yaml").read_bytes())
    settings = run_settings(
        tmp_path / "theirs.ckpt", picture_folder("i", 2), train__length=2, ema__decay=0.8, save__ema="keep"
    )
    trainer = make_trainer(settings, tmp_path)
    assert trainer.average.updates == 41
    for row in unet_rows(family.unet):
        began = trainer.average.weights[f"unet.{row.names[0]}"]
        assert torch.equal(began, average[row.key].reshape(began.shape)), row.key
    seen = finish(train(settings, run_dir=tmp_path / "run"))
    result = load_file(result_of(seen))
    assert int(result["model_ema.num_updates"]) == 43
    assert result.keys() == tensors.keys() | {ema_key(key) for key in average} | {
        "model_ema.decay", "model_ema.num_updates"}
    assert any("this run's average goes on" in notice.text for notice in of_kind(seen, Notice))


def test_a_parents_average_can_be_left_out(tiny_checkpoint, picture_folder, tmp_path):
    first = trained(tiny_checkpoint, picture_folder("i", 2), tmp_path, save__ema="keep")
    write_child(first.plan, first, tmp_path / "one.safetensors", {})
    (tmp_path / "one.yaml").write_bytes(tiny_checkpoint.with_suffix(".yaml").read_bytes())
    for choice, kept in (("use", True), ("drop", False)):
        settings = run_settings(tmp_path / "one.safetensors", tmp_path / "i", save__ema=choice)
        trainer = make_trainer(settings, tmp_path)
        write_child(trainer.plan, trainer, tmp_path / f"{choice}.safetensors", {})
        assert open_checkpoint(tmp_path / f"{choice}.safetensors").parts["ema"] == kept


def test_an_average_that_has_no_place_is_refused(tiny_checkpoint, picture_folder, tmp_path):
    for own in ({"method__kind": "lora"}, {"method__train_unet": False}):
        settings = run_settings(tiny_checkpoint, picture_folder(str(own), 1), ema__decay=0.9, save__ema="keep", **own)
        with pytest.raises(UserError, match=r"save\.ema: only the average of a whole UNet"):
            finish(train(settings, run_dir=tmp_path / "run"))


def test_what_was_waited_for_is_not_waited_for_again(tiny_checkpoint, picture_folder, tmp_path):
    """8 samples are two steps of four, and would be eight of the batch that the run goes on with."""
    own = run_settings(tiny_checkpoint, picture_folder("i", 4), train__length="24 samples", train__batch_size=4,
                       ema__decay=0.9, ema__after="8 samples", save__ema="use")  # fmt: skip
    token = CancelToken()
    finish(train(own, token, tmp_path / "cut"), token, stop_at=4)
    state = newest_state(tmp_path / "cut" / "state")
    assert state.facts["average_waited"] == 2
    token = CancelToken()
    finish(resume(tmp_path / "cut", {"train.batch_size": 1}, token), token, stop_at=5)
    kept = newest_state(tmp_path / "cut" / "state").load()
    differ = [name for name, value in kept.tensors.items() if name.startswith("average.")
              and not torch.equal(value, kept.tensors[f"weights.{name.removeprefix('average.')}"])]
    assert differ
