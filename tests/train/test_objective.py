"""The objective against numbers worked out elsewhere: published tables and formulas written out by hand."""
import pytest
import torch

from lib_sdtrain.errors import Problems
from lib_sdtrain.model.schedule import alphas_cumprod
from lib_sdtrain.settings.run_method import LossSettings
from lib_sdtrain.train import objective
from lib_sdtrain.train.criterion import Criterion
from lib_sdtrain.train.rates import SmoothedLoss, check_schedule, rate_factor

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


SNR = {0: 1175.47, 100: 8.45389, 249: 2.08102, 499: 0.384408, 749: 0.0600222, 999: 0.00468192}


@pytest.mark.parametrize("step", [100, 249, 499, 749, 999])
def test_debiased_weights_are_one_over_the_root_of_the_published_ratio(step):
    steps = torch.tensor([step])
    for kind, wanted in (("epsilon", SNR[step] ** -0.5), ("v_prediction", 1 / (SNR[step] + 1))):
        assert float(objective.debiased_weights(AC, steps, kind)) == pytest.approx(wanted, rel=1e-4)
    like_noise = float(objective.noise_like_weights(AC, steps))
    assert like_noise == pytest.approx(SNR[step] / (SNR[step] + 1), rel=1e-4)


def test_the_ratio_is_capped_and_may_be_nothing():
    first, last = torch.tensor([0]), torch.tensor([1])
    assert float(objective.debiased_weights(AC, first, "epsilon")) == pytest.approx(1000**-0.5)
    assert float(objective.noise_like_weights(AC, first)) == pytest.approx(1000 / 1001)
    zero = torch.tensor([0.9, 0.0])
    assert float(objective.debiased_weights(zero, last, "v_prediction")) == 1.0
    assert float(objective.noise_like_weights(zero, last)) == 0.0


def test_weighing_v_as_noise_gives_the_loss_of_the_noise():
    """With the clean picture fixed, an error e of v is an error sqrt(a) e of the noise: a = SNR / (SNR + 1)."""
    x, n = torch.randn(1, 4, 4, 4, dtype=torch.float64), torch.randn(1, 4, 4, 4, dtype=torch.float64)
    t = torch.tensor([300])
    a = float(AC[300])
    v = objective.velocity(x, n, AC, t)
    wrong = v + torch.randn_like(v)
    noisy = objective.add_noise(x, n, AC, t)
    noise_of = a**0.5 * wrong + (1 - a) ** 0.5 * noisy
    weight = float(objective.noise_like_weights(AC, t))
    assert float((noise_of - n).pow(2).mean()) == pytest.approx(weight * float((wrong - v).pow(2).mean()), rel=1e-5)


@pytest.mark.parametrize(("kind", "wanted"), [
    # d = 3 and c = 4: sqrt(d^2 + c^2) = 5
    ("mse", 9.0), ("l1", 3.0), ("huber", 2 * 4 * (5 - 4)), ("smooth_l1", 2 * (5 - 4)),
])
def test_errors_of_every_kind(kind, wanted):
    one = objective.errors(kind, torch.tensor([[3.0]]), torch.tensor([[0.0]]), torch.tensor([4.0]))
    assert float(one) == wanted


def test_huber_is_squared_where_small_and_absolute_where_large():
    c = torch.tensor([0.1], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    for size, plain in ((1e-4, 1e-8), (1e4, 2 * 0.1 * 1e4)):
        found = objective.errors("huber", torch.tensor([[size]], dtype=torch.float64), zero, c)
        assert float(found) == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize(("schedule", "step", "wanted"), [
    ("constant", 700, 0.1), ("exponential", 0, 1.0), ("exponential", 500, 0.1**0.5), ("exponential", 999, 0.1002305),
    # (1 - 0.1) / (1 + SNR^-1/2)^2 + 0.1 with the published ratios
    ("snr", 0, 0.9 / (1 + 1175.47**-0.5) ** 2 + 0.1), ("snr", 499, 0.9 / (1 + 0.384408**-0.5) ** 2 + 0.1),
    ("snr", 999, 0.9 / (1 + 0.00468192**-0.5) ** 2 + 0.1),
])
def test_hubers_c_over_the_timesteps(schedule, step, wanted):
    assert float(objective.huber_widths(schedule, 0.1, AC, torch.tensor([step]))) == pytest.approx(wanted, rel=1e-5)


def test_weights_of_timesteps_multiply():
    settings = LossSettings(
        min_snr_gamma=5.0, debiased_estimation=True, scale_v_pred_loss_like_noise_pred=True, kind="l1"
    )
    steps = torch.tensor([100, 749])
    found = Criterion(settings, "v_prediction", AC).per_sample(torch.full((2, 4, 2, 2), 3.0), torch.zeros(1), steps)
    for value, step in zip(found.tolist(), steps.tolist(), strict=True):
        snr = SNR[step]
        assert value == pytest.approx(3 * min(snr, 5) / (snr + 1) * snr / (snr + 1) / (snr + 1), rel=1e-4)


@pytest.mark.parametrize(("kind", "make", "options"), [
    ("constant", "constant_schedule_with_warmup", {}), ("linear", "linear_schedule_with_warmup", {}),
    ("cosine", "cosine_schedule_with_warmup", {}), ("cosine", "cosine_schedule_with_warmup", {"num_cycles": 2}),
    ("cosine_with_restarts", "cosine_with_hard_restarts_schedule_with_warmup", {}),
    ("cosine_with_restarts", "cosine_with_hard_restarts_schedule_with_warmup", {"num_cycles": 3}),
    ("polynomial", "polynomial_decay_schedule_with_warmup", {}),
    ("polynomial", "polynomial_decay_schedule_with_warmup", {"power": 2.0, "lr_end": 0.25}),
    ("piecewise_constant", "piecewise_constant_schedule", {"step_rules": "1:10,0.1:20,0.01:30,0.005"}),
])
def test_rates_are_those_of_diffusers_schedulers(kind, make, options):
    from diffusers import optimization

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    steps = {} if kind == "piecewise_constant" else {"num_warmup_steps": 5}
    if kind not in ("constant", "piecewise_constant"):
        steps["num_training_steps"] = 40
    theirs = getattr(optimization, f"get_{make}")(optimizer, **steps, **options)
    for step in range(40):
        ours = 0.5 * rate_factor(kind, step, 40, steps.get("num_warmup_steps", 0), options, 0.5)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("kind", "options", "wanted"), [
    ("linear", {"power": 1}, "linear has no such argument"), ("polynomial", {"power": "x"}, "is not a number"),
    ("piecewise_constant", {"step_rules": "1:10,0.1:5,0"}, "do not grow"),
    ("piecewise_constant", {"step_rules": "1,2"}, "has no step"),
])
def test_wrong_arguments_of_a_schedule_are_said(kind, options, wanted):
    problems = Problems()
    check_schedule(kind, options, problems)
    assert [wanted in str(problem) for problem in problems.found] == [True]


def test_the_smoothed_loss_of_a_constant_is_that_constant_from_the_first_value():
    smooth = SmoothedLoss()
    assert [smooth.update(3.0) for _ in range(5)] == pytest.approx([3.0] * 5)
