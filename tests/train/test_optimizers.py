"""Optimizers against their papers' formulas written out in double precision; memory kept bit for bit; names."""
from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from lib_sdtrain import train
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken, Stopped
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.train.optimizers import kept, registry
from lib_sdtrain.train.optimizers.adamw8bit import AdamW8bit
from lib_sdtrain.train.optimizers.lion import Lion
from lib_sdtrain.train.optimizers.prodigy import Prodigy
from lib_sdtrain.train.optimizers.quantized import BLOCK, dequantise, levels, quantise
from lib_sdtrain.train.optimizers.registry import arguments, base_rates, check_optimizer, names, optimizer_class
from lib_sdtrain.train.optimizers.schedule_free import ScheduleFreeAdamW
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.stages import stages_of
from lib_sdtrain.train.starting import resolve_run
from tests.train.runs import finish, run_settings
from tests.train.test_ema import result_of
from tests.train.test_step import make_trainer

TARGET = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


def follow(optimizer, parameter, steps, noise=0.3):
    """Steps towards TARGET with noisy gradients, the same for everybody; the parameter's values after each."""
    generator = torch.Generator().manual_seed(4)
    seen = []
    for _ in range(steps):
        gradient = parameter.detach() - TARGET + noise * torch.randn(3, 4, generator=generator, dtype=torch.float64)
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        seen.append(parameter.detach().clone())
    return seen


def start():
    return nn.Parameter(torch.full((3, 4), 0.5, dtype=torch.float64))


def reference(rule, steps, noise=0.3):
    """The same path by a rule (x, gradient) -> x."""
    x, generator, seen = start().detach(), torch.Generator().manual_seed(4), []
    for _ in range(steps):
        gradient = x - TARGET + noise * torch.randn(3, 4, generator=generator, dtype=torch.float64)
        x = rule(x, gradient)
        seen.append(x)
    return seen


def same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_lion_is_the_papers():
    m = torch.zeros(3, 4, dtype=torch.float64)

    def rule(x, g):
        nonlocal m
        u = (0.9 * m + 0.1 * g).sign()
        m = 0.99 * m + 0.01 * g
        return x - 0.01 * (u + 0.1 * x)

    parameter = start()
    same(follow(Lion([parameter], lr=0.01, weight_decay=0.1), parameter, 20), reference(rule, 20))


def test_prodigy_is_the_papers():
    x0, root = start().detach(), math.sqrt(0.999)
    d, r, s, m, v = 1e-6, 0.0, 0.0, 0.0, 0.0
    found = []

    def rule(x, g):
        nonlocal d, r, s, m, v
        m, v = 0.9 * m + 0.1 * d * g, 0.999 * v + 0.001 * d**2 * g**2
        r = root * r + (1 - root) * d**2 * float((g * (x0 - x)).sum())
        s = root * s + (1 - root) * d**2 * g
        x = x - d * m / (v**0.5 + d * 1e-8)
        d = max(d, r / float(s.abs().sum()))
        found.append(d)
        return x

    parameter = start()
    optimizer = Prodigy([parameter])
    same(follow(optimizer, parameter, 60, 0.0), reference(rule, 60, 0.0))
    assert optimizer.param_groups[0]["d"] == pytest.approx(found[-1], rel=1e-9)
    assert found[-1] > 1e-3  # it has found that the way is long


def test_prodigy_estimates_one_distance_for_all_groups_and_keeps_their_ratio():
    whole, parts = start(), [nn.Parameter(start().detach()[:1].clone()), nn.Parameter(start().detach()[1:].clone())]
    one, two = Prodigy([whole]), Prodigy([{"params": [parts[0]]}, {"params": [parts[1]]}])
    for _ in range(30):
        whole.grad = whole.detach() - TARGET
        parts[0].grad, parts[1].grad = parts[0].detach() - TARGET[:1], parts[1].detach() - TARGET[1:]
        one.step()
        two.step()
    torch.testing.assert_close(torch.cat([part.detach() for part in parts]), whole.detach(), rtol=1e-9, atol=1e-12)


def test_schedule_free_is_the_papers():
    x = z = start().detach()
    v, weights, rates = 0.0, 0.0, [0.01 * min(1.0, step / 5) for step in range(1, 31)]
    step, averages = 0, []

    def rule(y, g):
        nonlocal x, z, v, weights, step
        rate, step = rates[step], step + 1
        v = 0.999 * v + 0.001 * g**2
        z = z - rate * (g / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8) + 0.1 * y)
        weights += max(rates[:step]) ** 2
        c = max(rates[:step]) ** 2 / weights
        x = (1 - c) * x + c * z
        averages.append(x)
        return 0.1 * z + 0.9 * x

    parameter = start()
    optimizer = ScheduleFreeAdamW([parameter], lr=0.01, weight_decay=0.1)
    generator, ours, meant = torch.Generator().manual_seed(4), [], []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        noise = 0.3 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
        parameter.grad = parameter.detach() - TARGET + noise
        optimizer.step()
        ours.append(parameter.detach().clone())
        meant.append(next(iter(optimizer.averages()))[1].clone())
    same(ours, reference(rule, 30))
    same(meant, averages)


# eight bits


@pytest.mark.parametrize("signed", [True, False])
def test_the_levels_are_those_of_dynamic_quantisation(signed):
    table = levels(signed)
    assert len(table) == 256
    assert bool((table[1:] > table[:-1]).all())
    assert float(table[-1]) == 1.0
    smallest = float(table[table > 0][0])
    # the lowest decade, 1e-7 to 1e-6, has one level, unsigned two
    assert smallest == pytest.approx(0.55e-6 if signed else 0.325e-6)
    assert float(table[0]) == pytest.approx(-0.9929687 if signed else 0.0)
    # the highest decade is divided into 64, unsigned 128
    gaps = (table[1:] - table[:-1])[table[:-1] > 0.11][:-1]
    assert gaps.tolist() == pytest.approx([0.9 / (64 if signed else 128)] * len(gaps), rel=1e-3)


@pytest.mark.parametrize("signed", [True, False])
def test_eight_bits_are_near_and_their_levels_come_back_exactly(signed):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(10 * BLOCK + 17, generator=generator) * 10 ** torch.linspace(-6, 3, 10 * BLOCK + 17)
    values = values if signed else values.abs()
    codes, scales = quantise(values, signed)
    assert (codes.dtype, len(codes), len(scales)) == (torch.uint8, len(values), 11)
    back = dequantise(codes, scales, signed)
    largest = torch.repeat_interleave(scales.abs(), BLOCK)[: len(values)]
    assert float(((back - values).abs() / largest).max()) < 0.0071  # half a gap of the highest decade
    again = dequantise(*quantise(back, signed), signed)
    torch.testing.assert_close(again, back, rtol=1e-5, atol=0)
    if not signed:
        assert bool((back > 0).all())


def test_adamw_in_eight_bits_stays_beside_adamw():
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(64, 128, generator=generator)
    ends = []
    for made in (torch.optim.AdamW, AdamW8bit):
        parameter = nn.Parameter(torch.zeros(64, 128))
        optimizer = made([parameter], lr=0.02)
        noise = torch.Generator().manual_seed(2)
        for _ in range(200):
            parameter.grad = parameter.detach() - wanted + 0.5 * torch.randn(64, 128, generator=noise)
            optimizer.step()
        ends.append(parameter.detach())
    assert float((ends[0] - wanted).norm()) < 0.2 * float(wanted.norm())
    assert float((ends[1] - ends[0]).norm()) < 0.05 * float(ends[0].norm())
    bytes_kept = sum(value.nbytes for value in kept.tensors_of(optimizer).values())
    assert bytes_kept < 2.05 * parameter.numel()


def test_small_tensors_keep_their_moments_in_full():
    one, other = start().float(), start().float()
    one, other = nn.Parameter(one.detach()), nn.Parameter(other.detach())
    ours = follow(AdamW8bit([one], lr=0.01), one, 30)
    theirs = follow(torch.optim.AdamW([other], lr=0.01), other, 30)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_large_tensors_are_worked_on_in_pieces(monkeypatch):
    ends = []
    for piece in (BLOCK * 4, BLOCK * 4096):
        monkeypatch.setattr("lib_sdtrain.train.optimizers.adamw8bit.PIECE", piece)
        parameter = nn.Parameter(torch.linspace(-1, 1, 5003))
        optimizer = AdamW8bit([parameter], lr=0.01)
        for step in range(5):
            parameter.grad = (parameter.detach() * 3 + step).sin()
            optimizer.step()
        ends.append(parameter.detach())
    assert torch.equal(*ends)


# memory


EVERY = [*names(), "RAdam", "torch.optim.SGD"]


def small_run(name, steps, memory=None):
    """Two parameters after `steps` steps; going on from `memory` (weights, tensors, facts, steps done)."""
    settings = TrainGroup(optimizer=name, learning_rate=1.0 if name == "prodigy" else 1e-2)
    parameters = [nn.Parameter(torch.linspace(-1, 1, 6000).reshape(60, 100)), nn.Parameter(torch.ones(7))]
    groups = [{"params": [parameter], "name": str(n)} for n, parameter in enumerate(parameters)]
    optimizer = optimizer_class(name)(groups, lr=settings.learning_rate, **arguments(settings))
    done = 0
    if memory:
        weights, tensors, facts, done = memory
        for parameter, value in zip(parameters, weights, strict=True):
            parameter.data.copy_(value)
        kept.restore(optimizer, tensors, json.loads(json.dumps(facts)))
    for step in range(done, done + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = parameter.detach() + 0.1 * torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    weights = [parameter.detach().clone() for parameter in parameters]
    tensors = {name: value.clone() for name, value in kept.tensors_of(optimizer).items()}
    return weights, tensors, kept.facts_of(optimizer), done + steps


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_goes_on_bit_for_bit(name):
    straight = small_run(name, 7)
    cut = small_run(name, 3, small_run(name, 4))
    assert all(torch.equal(one, other) for one, other in zip(straight[0], cut[0], strict=True))
    assert straight[1].keys() == cut[1].keys()
    for key, value in straight[1].items():
        assert value.dtype == cut[1][key].dtype
        assert torch.equal(value, cut[1][key]), key
    assert straight[2] == cut[2]
    assert not torch.equal(straight[0][0], torch.linspace(-1, 1, 6000).reshape(60, 100))


@pytest.mark.parametrize("name", ["adamw8bit", "prodigy", "schedule_free"])
def test_a_stopped_run_goes_on_bit_for_bit(tiny_checkpoint, picture_folder, tmp_path, name):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__optimizer=name, train__length=3, train__lr_warmup=1,
        train__learning_rate=1.0 if name == "prodigy" else 1e-3,
    )
    straight = result_of(finish(train(settings, run_dir=tmp_path / "straight"))).read_bytes()
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    assert result_of(finish(resume(tmp_path / "cut"))).read_bytes() == straight


def test_what_is_shown_of_a_schedule_free_run_is_the_average(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 2), train__optimizer="schedule_free")
    trainer = make_trainer(settings, tmp_path)
    for part in trainer.model.parts.values():
        part.float()
    for _ in range(3):
        trainer.train_step()
    weight = trainer.model.unet.conv_in.weight
    live, z = weight.detach().clone(), trainer.optimizer.state[weight]["z"]
    with trainer.shown_weights():
        torch.testing.assert_close(weight.detach() * 0.9 + 0.1 * z, live, rtol=1e-4, atol=1e-6)
        assert not torch.equal(weight, live)
    assert torch.equal(weight, live)


# names


def complaints(**changes) -> list[str]:
    problems = Problems()
    check_optimizer(TrainGroup(**changes), problems)
    return [str(problem) for problem in problems.found]


@pytest.mark.parametrize("name", EVERY)
def test_every_name_is_accepted(name):
    assert complaints(optimizer=name) == []


@pytest.mark.parametrize(("changes", "wanted"), [
    ({"optimizer": "adammm"}, "'adammm' is no optimizer"),
    ({"optimizer": "nobodys.package.Adam"}, "cannot be imported"),
    ({"optimizer": "torch.nn.Linear"}, "is no optimizer"),
    ({"optimizer": "LBFGS"}, "asks for the loss many times"),
    ({"optimizer_args": {"momentum": 0.9}}, "adamw has no such argument"),
    ({"optimizer": "lion", "optimizer_args": {"eps": 1e-8}}, "lion has no such argument"),
    ({"optimizer_args": {"betas": [0.9]}}, "is not two numbers from 0 to 1"),
    ({"optimizer_args": {"eps": "small"}}, "is not a number of at least 0"),
    ({"optimizer": "schedule_free", "optimizer_args": {"betas": [0.0, 0.9]}}, "the first of betas must be over"),
    ({"optimizer": "SGD", "optimizer_args": {"momentum": -1}}, "does not take these"),
])
def test_what_is_wrong_is_said(changes, wanted):
    assert any(wanted in line for line in complaints(**changes)), complaints(**changes)


def test_learning_rates_scale_with_the_batch_or_the_pictures(tiny_checkpoint, tmp_path):
    changes = {"train__batch_size": 4, "train__gradient_accumulation_steps": 4, "train__learning_rate": 1e-4,
               "train__text_encoder_lr": 1e-5}
    for scale, factor in (("none", 1), ("linear", 16), ("sqrt", 4), ("pictures", 20)):
        settings = run_settings(tiny_checkpoint, tmp_path, train__scale_lr=scale, **changes)
        wanted = {"unet": 1e-4 * factor, "text_encoder": 1e-5 * factor, "text_encoder_2": 1e-4 * factor,
                  "embedding": 5e-3 * factor}
        assert base_rates(settings, pictures=20) == pytest.approx(wanted)


class TwoWays(torch.optim.SGD):
    """As the schedule-free optimizers of another package: its weights are averages only after `eval`."""

    def train(self): ...

    def eval(self): ...


def test_an_optimizer_whose_weights_are_not_what_is_meant_is_refused(tiny_checkpoint, tmp_path):
    settings = run_settings(tiny_checkpoint, tmp_path, train__optimizer=f"{__name__}.TwoWays")
    problems = Problems()
    check_optimizer(settings.train, problems)
    (problem,) = problems.found
    assert (problem.where, "choose schedule_free" in problem.fix) == ("train.optimizer", True)


def test_prodigys_learning_rate_is_one_unless_given(tiny_checkpoint):
    values = {"model.checkpoint": str(tiny_checkpoint), "train.optimizer": "prodigy"}
    assert resolve_run([Layer("test", values)], "cpu").settings.train.learning_rate == 1.0
    given = Layer("test", {**values, "train.learning_rate": 0.5})
    assert resolve_run([given], "cpu").settings.train.learning_rate == 0.5


def test_prodigys_rate_of_a_word_is_one_unless_given(tiny_checkpoint):
    values = {"model.checkpoint": str(tiny_checkpoint), "train.optimizer": "prodigy", "embedding.name": "x"}
    for kind in ("embedding", "lora", "full"):
        settings = resolve_run([Layer("test", {**values, "method.kind": kind})], "cpu").settings
        assert set(base_rates(settings, pictures=1).values()) == {1.0}
        given = Layer("test", {**values, "method.kind": kind, "embedding.learning_rate": 0.5})
        assert resolve_run([given], "cpu").settings.embedding.learning_rate == 0.5
    plain = {"model.checkpoint": str(tiny_checkpoint), "embedding.name": "x"}
    assert resolve_run([Layer("test", plain)], "cpu").settings.embedding.learning_rate == 5e-3


def test_a_stage_that_takes_prodigy_up_or_leaves_it_has_the_rates_of_its_own(tiny_checkpoint, tmp_path):
    stages = [
        {"train.optimizer": "prodigy"}, {"train.batch_size": 2}, {"train": {"optimizer": "lion"}},
        {"train.optimizer": "prodigy", "train.learning_rate": 0.5, "embedding.learning_rate": 0.25},
    ]
    given = {"train__learning_rate": 3e-5, "train__text_encoder_lr": 1e-6, "embedding__name": "x"}
    for kind, rate in (("full", 1e-6), ("lora", 1e-4)):
        settings = run_settings(tiny_checkpoint, tmp_path, method__kind=kind, stages=stages, **given)
        found = [base_rates(stage, pictures=1) for stage in stages_of(settings)]
        told = [(one["unet"], one["text_encoder"], one["embedding"]) for one in found]
        assert told == [(3e-5, 1e-6, 5e-3), (1, 1, 1), (1, 1, 1), (rate, rate, 5e-3), (0.5, 0.5, 0.25)]


@pytest.mark.parametrize("name", [*registry.names(), "SGD", "RAdam"])
def test_what_is_kept_of_each_weight_is_as_told(name):
    more = {"SGD": {"momentum": 0.9}}.get(name, registry.DEFAULTS.get(name, {}))
    weight = torch.randn(512, 512, requires_grad=True)
    optimizer = registry.optimizer_class(name)([weight], lr=1e-3, **more)
    weight.grad = torch.randn(512, 512)
    optimizer.step()
    kept = sum(value.nbytes for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor))
    assert kept / weight.numel() == pytest.approx(registry.moment_bytes(name), abs=0.05)
