"""Products of matrices by another library: where it is asked, and that it rounds no more than the usual one."""
from __future__ import annotations

import pytest
import torch

from lib_sdtrain.events import Preview, Step
from lib_sdtrain.train import products
from lib_sdtrain.train.loop import train
from lib_sdtrain.train.products import LARGE, Products
from lib_sdtrain.train.trainer import Trainer
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind, run_settings

pytestmark = pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch is older than 2.9")
SHAPES = [(1, 320, 1280), (2, 1280, 320), (8, 1280, 23040), (1280, 8, 11520), (77, 768, 768), (512, 320, 320)]


def asked() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def amd(monkeypatch):
    """A processor on which another library is the faster."""
    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)


@pytest.mark.parametrize(("first", "second"), [(False, False), (True, False), (False, True), (True, True)])
def test_whatever_the_processor_products_are_those_of_32_bits(amd, first, second):
    torch.manual_seed(0)
    with Products("cpu", LARGE)():
        for rows, over, columns in SHAPES:
            one = torch.randn(over, rows).T if first else torch.randn(rows, over)
            other = torch.randn(columns, over).T if second else torch.randn(over, columns)
            whole = one.double() @ other.double()
            stacked = torch.bmm(torch.stack([one, -one]), torch.stack([other, other]))
            added = torch.nn.functional.linear(one, other.T, torch.ones(columns)) - 1
            for got in (one @ other, stacked[0], -stacked[1], added):
                assert (got - whole).norm() < products.EXACT * whole.norm()


def test_one_that_rounds_to_fewer_bits_is_not_asked(amd, monkeypatch):
    whole = torch.Tensor.__matmul__

    def rounded(first, second):
        if asked() == "bf16" and first.dtype == torch.float32:
            first, second = first.bfloat16().float(), second.bfloat16().float()
        return whole(first, second)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    before = asked()
    chosen = Products("cpu", LARGE)
    with chosen():
        assert asked() == before
    assert not chosen.chosen


@pytest.mark.parametrize(("device", "weights", "slow", "chosen"), [
    ("cpu", LARGE, True, True), ("cpu", LARGE - 1, True, False), ("cuda", LARGE, True, False),
    ("cpu", LARGE, False, False),
])  # fmt: skip
def test_it_is_asked_for_large_models_on_a_processor_that_gains_by_it(monkeypatch, device, weights, slow, chosen):
    monkeypatch.setattr(products, "mkl_is_slow", lambda: slow)
    monkeypatch.setattr(products, "exact", lambda: True)
    before = asked()
    with Products(device, weights)():
        assert asked() == ("bf16" if chosen else before)
    assert asked() == before


@pytest.mark.parametrize(("capability", "facts", "slow"), [
    ("AVX512", "vendor_id\t: AuthenticAMD\n", True), ("AVX2", "vendor_id\t: AuthenticAMD\n", False),
    ("AVX512", "vendor_id\t: GenuineIntel\n", False), ("AVX512", None, True),
])  # fmt: skip
def test_which_processors_gain(monkeypatch, tmp_path, capability, facts, slow):
    cpuinfo = tmp_path / "cpuinfo"
    if facts:
        cpuinfo.write_text(facts, encoding="utf-8")
    monkeypatch.setattr(products, "Path", lambda _path: cpuinfo)
    monkeypatch.setattr(products.platform, "processor", lambda: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert products.mkl_is_slow() is slow


def test_what_fails_meanwhile_leaves_it_as_it_was(amd, monkeypatch):
    monkeypatch.setattr(products, "exact", lambda: True)
    before = asked()
    with pytest.raises(KeyError), Products("cpu", LARGE)():
        raise KeyError
    assert asked() == before


@pytest.fixture
def ways(monkeypatch):
    """How a run's UNet went forward (with gradients or for a picture) and backward, and what was asked for then."""
    seen = set()
    prepare = Trainer._prepare_modules

    def watched(trainer):
        prepare(trainer)
        layer = trainer.model.unet.conv_in
        layer.register_forward_hook(lambda *_: seen.add(("forward" if torch.is_grad_enabled() else "drawn", asked())))
        layer.weight.register_hook(lambda _gradient: seen.add(("backward", asked())))

    monkeypatch.setattr(Trainer, "_prepare_modules", watched)
    return seen


@pytest.mark.parametrize("inside", [False, True])
def test_steps_ask_and_what_is_drawn_is_drawn_as_everywhere(
    amd, ways, monkeypatch, tmp_path, picture_folder, inside
):
    folder, before = picture_folder("i", 3), asked()
    settings = run_settings(
        write_tiny(tmp_path / "model.safetensors"), folder, train__step_in_backward=inside,
        preview__prompts=["a dog\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"], preview__every="2",
    )  # fmt: skip
    losses = []
    for large, chosen in ((LARGE, before), (0, "bf16" if Products("cpu", LARGE).chosen else before)):
        monkeypatch.setattr(products, "LARGE", large)
        seen = finish(train(settings, run_dir=tmp_path / f"run{large}", outputs=tmp_path / f"o{large}", device="cpu"))
        losses.append([event.loss for event in of_kind(seen, Step)])
        assert of_kind(seen, Preview)
        assert ways == {("forward", chosen), ("backward", chosen), ("drawn", before)}
        ways.clear()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
