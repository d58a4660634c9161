"""The objective against numbers worked out elsewhere: published tables and formulas written out by hand."""
import pytest
import torch

from lib_sdtrain.model.schedule import alphas_cumprod
from lib_sdtrain.train import objective
from lib_sdtrain.train.rates import SmoothedLoss, rate_factor

AC = alphas_cumprod()


@pytest.mark.parametrize(("step", "weight"), [(0, 0.00425362), (100, 0.591443), (147, 1.0), (499, 1.0), (999, 1.0)])
def test_min_snr_weights_for_epsilon(step, weight):
    assert float(objective.min_snr_weights(AC, torch.tensor([step]), 5.0, "epsilon")) == pytest.approx(weight, rel=1e-4)


def test_min_snr_weights_average_as_published():
    every = objective.min_snr_weights(AC, torch.arange(1000), 5.0, "epsilon")
    assert float(every.mean()) == pytest.approx(0.916571, abs=2e-6)


@pytest.mark.parametrize(("step", "weight"), [
    (0, 0.00425), (100, 0.528883), (249, 0.675432), (499, 0.277670), (999, 0.00466010),
])
def test_min_snr_weights_for_velocity(step, weight):
    weights = objective.min_snr_weights(AC, torch.tensor([step]), 5.0, "v_prediction")
    assert float(weights) == pytest.approx(weight, rel=1e-3)


def test_a_step_without_signal_has_a_finite_weight():
    zero = torch.tensor([0.9, 0.0])
    for kind in ("epsilon", "v_prediction"):
        assert torch.isfinite(objective.min_snr_weights(zero, torch.tensor([1]), 5.0, kind)).all()


def test_noise_and_velocity_are_two_views_of_the_same_circle():
    x, n = torch.randn(4, 4, 2, 2, dtype=torch.float64), torch.randn(4, 4, 2, 2, dtype=torch.float64)
    t, ac = torch.tensor([0, 10, 500, 999]), AC.double()
    noisy, v = objective.add_noise(x, n, ac, t), objective.velocity(x, n, ac, t)
    a = ac[t].sqrt().reshape(-1, 1, 1, 1)
    s = (1 - ac[t]).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(a * noisy - s * v, x)
    torch.testing.assert_close(s * noisy + a * v, n)


@pytest.mark.parametrize(("reduction", "weight", "expected"), [
    ("sum", 1.0, (1 + 2) / 2 + (4 + 8) / 2), ("sum", 0.5, 1.5 + 3.0), ("sum", 0.0, 1.5),
    ("mean", 1.0, 15 / 4), ("mean", 0.5, (1 + 2 + 2 + 4) / 4), ("mean", 0.0, 3 / 4),
])
def test_prior_loss_reductions(reduction, weight, expected):
    losses, is_class = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([False, False, True, True])
    assert float(objective.reduce_losses(losses, is_class, weight, reduction)) == pytest.approx(expected)


def test_without_class_samples_both_reductions_are_the_plain_mean():
    losses, none = torch.tensor([1.0, 2.0, 6.0]), torch.zeros(3, dtype=torch.bool)
    for reduction in ("sum", "mean"):
        assert float(objective.reduce_losses(losses, none, 1.0, reduction)) == pytest.approx(3.0)


def test_rates_are_those_of_diffusers_schedulers():
    from diffusers.optimization import get_scheduler

    for kind in ("constant", "linear", "cosine"):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        name = "constant_with_warmup" if kind == "constant" else kind
        theirs = get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=40)
        for step in range(40):
            assert rate_factor(kind, step, 40, 5) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
            optimizer.step()
            theirs.step()


def test_the_smoothed_loss_of_a_constant_is_that_constant_from_the_first_value():
    smooth = SmoothedLoss()
    assert [smooth.update(3.0) for _ in range(5)] == pytest.approx([3.0] * 5)
