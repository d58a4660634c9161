"""Moments that begin in memory of zeros: the same numbers, in another place."""
from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lib_sdtrain.events import CancelToken, Finished
from lib_sdtrain.train import loop
from lib_sdtrain.train.backward_steps import SMALL
from lib_sdtrain.train.optimizers.registry import _has_fused_adamw
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.zeroed import ALIGNED, SPARE, ZeroedMemory, begin_in, zeroed_memory
from tests.train.runs import finish, run_settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there it is not used")


def inside(zeros: ZeroedMemory, tensor: torch.Tensor) -> bool:
    first = tensor.data_ptr()
    return first in zeros.addresses and first + tensor.nbytes - 1 in zeros.addresses


def test_what_is_handed_out_is_zero_lies_apart_and_outlives_its_memory():
    zeros = ZeroedMemory(10_000)
    wanted = [torch.ones(3, 5), torch.ones(7, dtype=torch.float64), torch.ones(())]
    made = [zeros.like(tensor) for tensor in wanted]
    for one, like in zip(made, wanted, strict=True):
        assert torch.equal(one, torch.zeros_like(like))
        assert one.dtype == like.dtype
        assert one.data_ptr() % ALIGNED == 0
        assert inside(zeros, one)
    for number, one in enumerate(made, 1):
        one.fill_(number)
    del zeros
    assert [float(one.sum()) for one in made] == [15, 14, 3]


def test_when_none_are_left_torch_makes_them():
    zeros = ZeroedMemory(1024)
    large = torch.ones((SPARE + 1024) // 4 + 1)
    assert torch.equal(zeros.like(large), torch.zeros_like(large))
    assert not inside(zeros, zeros.like(large))
    assert inside(zeros, zeros.like(torch.ones((SPARE + 1024) // 4)))
    assert not inside(zeros, zeros.like(torch.ones(1)))


def test_nothing_is_taken_where_nothing_is_wanted_or_the_system_refuses():
    assert zeroed_memory(0) is None
    assert zeroed_memory(2**62) is None


@pytest.mark.parametrize("fused", [False, True])
def test_adam_moves_the_same_way_and_only_what_has_gradients_has_moments(fused):
    if fused and not _has_fused_adamw("cpu"):
        pytest.skip("this torch has none")
    torch.manual_seed(0)
    plain = nn.ModuleDict({"used": nn.Linear(200, 150), "unused": nn.Linear(200, 150)})
    ours = copy.deepcopy(plain)
    optimizers = [torch.optim.AdamW(module.parameters(), lr=0.1, fused=fused) for module in (plain, ours)]
    zeros = ZeroedMemory(8 * 2 * 200 * 150)
    begin_in(optimizers[1], zeros)
    for step in range(3):
        x = torch.randn(4, 200, generator=torch.Generator().manual_seed(step))
        for module, optimizer in zip((plain, ours), optimizers, strict=True):
            optimizer.zero_grad()
            module["used"](x).square().mean().backward()
            optimizer.step()
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)
        states = [optimizer.state.get(weight, {}) for optimizer, weight in zip(optimizers, (one, other), strict=True)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert [inside(zeros, states[1][name]) for name in ("exp_avg", "exp_avg_sq") if states[1]] == (
            [other.numel() >= SMALL] * 2 if states[1] else [])
    assert len(optimizers[1].state) == 2


def test_moments_that_were_restored_stay():
    module = nn.Linear(200, 150)
    optimizer = torch.optim.AdamW(module.parameters())
    begin_in(optimizer, ZeroedMemory(8 * 200 * 150))
    kept = torch.full_like(module.weight, 0.5)
    optimizer.state[module.weight] = {"step": torch.tensor(3.0), "exp_avg": kept, "exp_avg_sq": kept.clone()}
    module(torch.randn(2, 200)).sum().backward()
    optimizer.step()
    assert optimizer.state[module.weight]["exp_avg"] is kept
    assert float(optimizer.state[module.weight]["step"]) == 4


@pytest.fixture
def begun(monkeypatch):
    """How many bytes each run's moments began in."""
    sizes = []

    def memory(size):
        sizes.append(size)
        return zeroed_memory(size)

    monkeypatch.setattr(loop, "zeroed_memory", memory)
    return sizes


@pytest.mark.parametrize("in_backward", [False, True])
def test_a_run_ends_with_the_same_weights(tmp_path, picture_folder, begun, monkeypatch, in_backward):
    def settings(**changes):
        return run_settings(Path("toybox"), folder, **{
            "train__length": 3, "train__step_in_backward": in_backward, "method__train_text_encoder": True, **changes,
        })  # fmt: skip

    def result(seen):
        assert isinstance(seen[-1], Finished), seen[-1]
        return Path(seen[-1].result["checkpoint"]).read_bytes()

    folder, run = picture_folder("subject", 2), tmp_path / "runs" / "whole"
    whole = result(finish(loop.train(settings(), run_dir=run)))
    assert begun[0] > 10**6
    token = CancelToken()
    finish(loop.train(settings(), token, run_dir=tmp_path / "runs" / "cut"), token, stop_at=2)
    assert result(finish(resume(tmp_path / "runs" / "cut"))) == whole
    assert len(begun) == 2  # moments that are loaded begin as they were
    monkeypatch.setattr(loop, "zeroed_memory", lambda size: None)
    assert result(finish(loop.train(settings(), run_dir=tmp_path / "runs" / "plain"))) == whole


@pytest.mark.parametrize("changes", [
    {"train__optimizer": "lion"}, {"train__optimizer_args": {"amsgrad": True}}, {"train__optimizer": "Adam"},
])  # fmt: skip
def test_other_optimizers_begin_as_they_do(tmp_path, picture_folder, begun, changes):
    settings = run_settings(Path("toybox"), picture_folder("subject", 2), train__length=1, **changes)
    assert isinstance(finish(loop.train(settings, run_dir=tmp_path / "run"))[-1], Finished)
    assert begun == [0]
