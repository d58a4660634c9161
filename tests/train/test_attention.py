"""The kernel for half precision on a CPU is another way to the same numbers."""
from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from lib_sdtrain.train import attention


@pytest.mark.parametrize("keys", [None, 77])
@pytest.mark.parametrize("largest", [0, attention.LARGEST_TABLE])
def test_both_kernels_give_the_same_values_and_gradients(monkeypatch, keys, largest):
    monkeypatch.setattr(attention, "LARGEST_TABLE", largest)
    torch.manual_seed(0)
    layer = Attention(query_dim=32, cross_attention_dim=24 if keys else None, heads=4, dim_head=8).double()
    hidden = torch.randn(2, 50, 32, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, keys, 24, dtype=torch.float64) if keys else None
    found = []
    for processor in (AttnProcessor2_0(), attention.HalfAttentionOnCpu()):
        layer.set_processor(processor)
        out = layer(hidden, encoder_hidden_states=context)
        found.append((out, torch.autograd.grad(out.square().sum(), hidden)[0]))
    for expected, got in zip(*found, strict=True):
        assert torch.allclose(expected, got, atol=1e-12)


@pytest.mark.parametrize(("device", "precision", "chosen"), [("cpu", "bf16", True), ("cpu", "no", False),
                                                              ("cuda", "bf16", False)])  # fmt: skip
def test_torchs_own_kernel_stays_where_it_is_the_faster_one(device, precision, chosen):
    class Spy:
        processor = None

        def set_attn_processor(self, processor):
            self.processor = processor

    spy = Spy()
    attention.choose_attention(spy, device, precision)
    assert isinstance(spy.processor, attention.HalfAttentionOnCpu) == chosen
