"""Moments in main memory: the same steps, and nothing of them on the device in between."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken, Finished
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.train.optimizers import elsewhere, kept
from lib_sdtrain.train.optimizers.elsewhere import MomentsElsewhere, check_elsewhere, lie_elsewhere
from lib_sdtrain.train.optimizers.registry import optimizer_class
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.state import newest_state
from tests.train.runs import finish, run_settings

NAMES = ["adamw", "adamw8bit", "lion", "adafactor", "schedule_free", "SGD"]
MORE = {"SGD": {"momentum": 0.9}, "adafactor": {"scale_parameter": False, "relative_step": False}}


def weights():
    """Two large ones, one small one, one that no gradient reaches."""
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in ((130, 130), (200, 100), (7,), (150, 150))]


def run(name, apart, monkeypatch, steps=3):
    parameters = weights()
    groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
    optimizer = optimizer_class(name)(groups, lr=1e-2, **MORE.get(name, {}))
    if apart:
        monkeypatch.setattr(elsewhere, "TOGETHER", 1)  # one at a time
        MomentsElsewhere(optimizer)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters[:3]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_the_same_bit_for_bit(name, monkeypatch):
    (plain, one), (ours, other) = (run(name, apart, monkeypatch) for apart in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))
    assert not torch.equal(plain[0], weights()[0])
    states, others = kept.tensors_of(one), kept.tensors_of(other)
    assert states.keys() == others.keys()
    assert all(torch.equal(states[key], others[key]) for key in states)
    assert kept.facts_of(one) == kept.facts_of(other)


class Noticing(torch.optim.SGD):
    """Notes which tensors of its memory it works on, and of how many parameters at a time."""

    worked_on: list

    def step(self):
        super().step()
        moved = [parameter for group in self.param_groups for parameter in group["params"]]
        self.worked_on.append([self.state[parameter]["momentum_buffer"] for parameter in moved])


@pytest.mark.parametrize(("together", "parts"), [(1, [1, 1, 1]), (4 * 130 * 130 + 1, [1, 1, 1]), (2**28, [2, 1])])
def test_a_step_works_on_copies_of_a_few_and_brings_them_home(monkeypatch, together, parts):
    monkeypatch.setattr(elsewhere, "TOGETHER", together)
    parameters = weights()
    optimizer = Noticing([{"params": parameters[:2]}, {"params": parameters[2:]}], lr=1e-2, momentum=0.9)
    MomentsElsewhere(optimizer)
    homes = []
    for _step in range(2):
        optimizer.worked_on = []
        for parameter in parameters[:3]:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert [len(some) for some in optimizer.worked_on] == parts
        homes.append([optimizer.state[parameter]["momentum_buffer"] for parameter in parameters[:3]])
        worked_on = {id(value) for some in optimizer.worked_on for value in some}
        assert [id(value) in worked_on for value in homes[-1]] == [False, False, True]  # the small one stays
    assert all(one is other for one, other in zip(*homes, strict=True))  # in a place of its own, made once
    assert all(torch.equal(value, torch.full_like(value, 1.9)) for value in homes[-1])


def test_a_resumed_optimizer_has_its_moments_in_main_memory_at_once(monkeypatch):
    _weights, optimizer = run("adamw", True, monkeypatch)
    again = torch.optim.AdamW([{"params": weights()[:2]}, {"params": weights()[2:]}], lr=1e-2)
    loaded, load = [], again.load_state_dict
    monkeypatch.setattr(again, "load_state_dict", lambda state: (
        loaded.extend(name for values in state["state"].values() for name in values if values[name].numel() > 7),
        load(state)))
    kept.restore(again, kept.tensors_of(optimizer), kept.facts_of(optimizer), elsewhere=True)
    assert not loaded  # torch would have taken it to the device
    assert all(torch.equal(value, kept.tensors_of(again)[key]) for key, value in kept.tensors_of(optimizer).items())


@pytest.mark.parametrize("own", [
    {}, {"train__step_in_backward": True}, {"train__optimizer": "adamw8bit", "ema__decay": 0.9},
    {"train__optimizer": "schedule_free", "train__gradient_accumulation_steps": 2},
])  # fmt: skip
def test_a_run_is_the_same_with_it_or_without_and_goes_on_with_either(
    tiny_checkpoint, picture_folder, tmp_path, monkeypatch, own
):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 3), train__length=3, **own)
    wanted = finish(train(settings, run_dir=tmp_path / "plain"))[-1]
    assert isinstance(wanted, Finished), wanted
    monkeypatch.setattr("lib_sdtrain.train.trainer.lie_elsewhere", lambda train, device: train.optimizer_on_cpu)
    apart = replace(settings, train=replace(settings.train, optimizer_on_cpu=True))
    token = CancelToken()
    finish(train(apart, token, run_dir=tmp_path / "apart"), token, stop_at=2)
    assert newest_state(tmp_path / "apart" / "state").facts["step"] == 2
    ours, plain = (load_file(end.result["checkpoint"]) for end in (finish(resume(tmp_path / "apart"))[-1], wanted))
    assert ours.keys() == plain.keys()
    assert all(torch.equal(value, plain[key]) for key, value in ours.items())


def test_only_a_device_of_its_own_has_moments_elsewhere():
    on = TrainGroup(optimizer_on_cpu=True)
    assert [lie_elsewhere(on, device) for device in ("cpu", "cuda", "mps")] == [False, True, False]
    assert not lie_elsewhere(TrainGroup(), "cuda")


@pytest.mark.parametrize(("name", "wrong"), [
    ("prodigy", True), ("bitsandbytes.optim.PagedAdamW8bit", True), ("adamw", False), ("RAdam", False),
])
def test_an_optimizer_that_looks_at_all_weights_together_is_refused(name, wrong):
    problems = Problems()
    check_elsewhere(TrainGroup(optimizer=name, optimizer_on_cpu=True), problems)
    assert [problem.where for problem in problems.found] == ["train.optimizer_on_cpu"] * wrong
