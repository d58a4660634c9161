"""The noise tables against published numbers and an independent computation."""
import numpy as np
import pytest
import torch

from lib_sdtrain.model.schedule import alphas_cumprod, rescale_zero_terminal_snr, scaled_linear_betas, snr


def test_alphas_cumprod_has_the_known_values():
    table = alphas_cumprod()
    assert table.dtype == torch.float32
    assert table.shape == (1000,)
    for step, value in {0: 0.99915, 499: 0.2776697, 999: 0.00466010}.items():
        assert table[step].item() == pytest.approx(value, rel=1e-6)


def test_snr_has_the_known_values():
    ratios = snr(torch.cumprod(1 - scaled_linear_betas(), 0))
    known = {0: 1175.47, 100: 8.45389, 249: 2.08102, 499: 0.384408, 749: 0.0600222, 999: 0.00468192}
    for step, value in known.items():
        assert ratios[step].item() == pytest.approx(value, rel=2e-6)


def test_the_table_equals_numpys_double_precision_one_rounded_once():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    expected = np.cumprod(1 - betas).astype(np.float32)
    assert np.array_equal(alphas_cumprod().numpy(), expected)


def test_zero_terminal_snr_has_the_known_values():
    table = rescale_zero_terminal_snr(torch.cumprod(1 - scaled_linear_betas(), 0))
    for step, value in {0: 0.99915, 1: 0.998233, 499: 0.242359, 998: 1.968e-7}.items():
        assert table[step].item() == pytest.approx(value, rel=3e-4 if step == 998 else 3e-6)
    assert table[999].item() == 0.0


def test_rescaling_leaves_its_input_alone_and_takes_another_last_value():
    table = alphas_cumprod()
    before = table.clone()
    assert rescale_zero_terminal_snr(table, last=4.9e-08)[-1].item() == pytest.approx(4.9e-08)
    assert torch.equal(table, before)
