"""Samplers on problems whose solution is known: data that is Gaussian, so that the ideal denoiser is linear.

For data N(0, s²) the denoiser is D(x, sigma) = x s² / (s² + sigma²), and the ODE carries x from sigma_0 to sigma along
x0 · sqrt((s² + sigma²) / (s² + sigma_0²)).
"""
from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.schedule import alphas_cumprod
from lib_sdtrain.sample.brownian import BrownianNoise
from lib_sdtrain.sample.levels import NoiseLevels
from lib_sdtrain.sample.run_sampler import _SIGMA
from lib_sdtrain.sample.samplers import ddim, dpm2, dpm_solver, dpmpp, euler, lcm, lms, restart, unipc
from lib_sdtrain.sample.samplers.registry import SAMPLERS
from lib_sdtrain.sample.samplers.steps import Churn, ancestral
from lib_sdtrain.sample.schedules import Range, karras

S = 0.8
TABLE = alphas_cumprod()
LEVELS = NoiseLevels(TABLE)
SPAN = (LEVELS.sigma_min, LEVELS.sigma_max)
X = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)).double() * LEVELS.sigma_max


def denoise(x, sigma):
    return x * S**2 / (S**2 + sigma**2)


def exact(x, sigma, sigma_next):
    return x * math.sqrt((S**2 + sigma_next**2) / (S**2 + sigma**2))


def no_noise(sigma, sigma_next):
    raise AssertionError("a deterministic sampler drew noise")


def schedule(steps):
    return karras(steps, Range(LEVELS, *SPAN))[:-1].double()  # down to sigma_min: the exact end is known there


def error(sampler, steps, **keywords):
    found = sampler(denoise, X, schedule(steps), no_noise, **keywords)
    return float((found - exact(X, SPAN[1], SPAN[0])).abs().max() / X.std())


ORDERS = [
    (euler.euler, 1, {}), (euler.euler_ancestral, 1, {"eta": 0}), (euler.heun, 2, {}), (dpm2.dpm2, 2, {}),
    (dpm2.dpm2_ancestral, 2, {"eta": 0}), (lms.lms, 3, {}), (dpmpp.dpmpp_2m, 2, {}),
    (dpmpp.dpmpp_2s_ancestral, 2, {"eta": 0}), (dpmpp.dpmpp_2m_sde, 2, {"eta": 0}),
    (dpmpp.dpmpp_2m_sde, 2, {"eta": 0, "heun": True}), (dpmpp.dpmpp_3m_sde, 2, {"eta": 0}),
]


@pytest.mark.parametrize(("sampler", "order", "keywords"), ORDERS,
                         ids=[f"{sampler.__name__}-{order}" for sampler, order, _ in ORDERS])
def test_a_solver_converges_with_its_order(sampler, order, keywords):
    coarse, fine = error(sampler, 100, **keywords), error(sampler, 200, **keywords)
    assert fine < 2e-3
    assert math.log2(coarse / fine) > order - 0.35


@pytest.mark.parametrize("sampler", [entry for entry in SAMPLERS if entry.function in _SIGMA], ids=lambda s: s.name)
def test_a_step_to_zero_is_the_denoised_picture(sampler):
    found = _SIGMA[sampler.function](denoise, X, torch.tensor([2.0, 0.0]), lambda *_: torch.zeros_like(X))
    assert torch.allclose(found, denoise(X, 2.0))


def gaussian_noise(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *_: torch.randn(64, 4, 8, 8, generator=generator).double()


@pytest.mark.parametrize("sampler", [
    euler.euler_ancestral, dpm2.dpm2_ancestral, dpmpp.dpmpp_2s_ancestral, dpmpp.dpmpp_sde, dpmpp.dpmpp_2m_sde,
    dpmpp.dpmpp_3m_sde,
])
def test_a_stochastic_sampler_keeps_the_distribution(sampler):
    """From N(0, s² + sigma_0²) to N(0, s² + sigma²)."""
    start = gaussian_noise(0)() * math.sqrt(S**2 + SPAN[1] ** 2)
    end = sampler(denoise, start, schedule(120 if sampler is not euler.euler_ancestral else 600), gaussian_noise(1))
    assert float(end.std()) == pytest.approx(math.sqrt(S**2 + SPAN[0] ** 2), rel=0.03)


@pytest.mark.parametrize("sampler", [euler.euler, euler.heun, dpm2.dpm2])
def test_churn_keeps_the_distribution(sampler):
    start = gaussian_noise(0)() * math.sqrt(S**2 + SPAN[1] ** 2)
    end = sampler(denoise, start, schedule(120), gaussian_noise(1), churn=Churn(40.0, 0.05, 12.0, 1.0))
    first_order = sampler is euler.euler
    assert float(end.std()) == pytest.approx(math.sqrt(S**2 + SPAN[0] ** 2), rel=0.12 if first_order else 0.03)


def test_the_stochastic_solvers_agree_on_one_brownian_path():
    def draw(seed, shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()

    sigmas = schedule(400)
    noise = BrownianNoise([1, 2], X.shape[1:], sigmas, draw)
    ends = [sampler(denoise, X, sigmas, noise) for sampler in
            (dpmpp.dpmpp_sde, dpmpp.dpmpp_2m_sde, dpmpp.dpmpp_3m_sde)]
    for one, other in pairwise(ends):
        assert float((one - other).abs().max()) < 0.05 < float(one.std())


@pytest.mark.parametrize(("sigma", "sigma_next", "eta"), [(3.0, 1.0, 1.0), (3.0, 2.9, 0.5), (1.0, 0.0, 1.0)])
def test_down_and_up_make_the_next_level(sigma, sigma_next, eta):
    down, up = ancestral(sigma, sigma_next, eta)
    assert down**2 + up**2 == pytest.approx(sigma_next**2)


def test_lms_integrates_cubics_exactly():
    sigmas = [9.0, 7.0, 4.5, 2.0, 1.5]
    cubic = np.polynomial.Polynomial([1.0, -2.0, 0.5, 0.25])
    weights = lms.coefficients(sigmas, 3, 4)
    found = sum(weight * cubic(sigmas[3 - j]) for j, weight in enumerate(weights))
    assert found == pytest.approx(cubic.integ()(sigmas[4]) - cubic.integ()(sigmas[3]))


@pytest.mark.parametrize("nfe", range(1, 25))
def test_dpm_fast_spends_its_evaluations(nfe):
    calls = []

    def counting(x, sigma):
        calls.append(sigma)
        return denoise(x, sigma)

    end = dpm_solver.dpm_fast(counting, X, SPAN, lambda *_: torch.zeros_like(X), nfe=nfe)
    assert len(calls) == nfe == sum(dpm_solver.fast_orders(nfe))
    if nfe > 20:
        assert torch.allclose(end, exact(X, SPAN[1], SPAN[0]), atol=0.02 * float(X.std()))


def test_dpm_adaptive_meets_its_tolerance():
    calls = []

    def counting(x, sigma):
        calls.append(sigma)
        return denoise(x, sigma)

    end = dpm_solver.dpm_adaptive(counting, X, SPAN, lambda *_: torch.zeros_like(X))
    assert torch.allclose(end, exact(X, SPAN[1], SPAN[0]), atol=0.01 * float(X.std()))
    assert 9 < len(calls) < 100


def test_restart_goes_back_up_once_from_20_steps_and_twice_from_36():
    def climbs(steps):
        starts = [step[0] for step in restart.plan(karras(steps, Range(LEVELS, *SPAN)))]
        return sum(after > before for before, after in pairwise(starts))

    assert [climbs(steps) for steps in (12, 19, 20, 35, 36, 80)] == [0, 0, 1, 1, 2, 2]


def test_restart_takes_about_as_many_steps_as_asked():
    for steps in (20, 30, 36, 60):
        assert abs(len(restart.plan(karras(steps, Range(LEVELS, *SPAN)))) - steps) <= 2


def eps(x, t):
    """The ideal noise prediction for data N(0, S²) in the variance-preserving form."""
    a = float(TABLE[round(t)])
    return x * math.sqrt(1 - a) / (a * S**2 + 1 - a)


def vp_exact(x, start, end):
    def std(t):
        return math.sqrt(float(TABLE[t]) * S**2 + 1 - float(TABLE[t]))
    return x * std(end) / std(start)


@pytest.mark.parametrize(("sampler", "bound"), [(ddim.ddim, 0.05), (ddim.plms, 0.01)])
def test_timestep_samplers_solve_the_ode(sampler, bound):
    visit = torch.arange(0, 1000, 5) + 1
    x = X / SPAN[1]
    arguments = (eps, x, visit, TABLE) if sampler is ddim.plms else (eps, x, visit, TABLE, no_noise)
    assert torch.allclose(sampler(*arguments), vp_exact(x, int(visit[-1]), 1), atol=bound)


def test_ddim_with_noise_keeps_the_distribution():
    visit = torch.arange(0, 1000, 5) + 1
    start = gaussian_noise(0)()
    end = ddim.ddim(eps, start, visit, TABLE, gaussian_noise(2), eta=1.0)
    assert float(end.std()) == pytest.approx(S, rel=0.05)


def test_cfgpp_with_equal_predictions_is_ddim():
    visit = torch.arange(0, 1000, 50) + 1
    both = ddim.ddim_cfgpp(lambda x, t: (eps(x, t), eps(x, t)), X, visit, TABLE, no_noise)
    assert torch.equal(both, ddim.ddim(eps, X, visit, TABLE, no_noise))


@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary_coeff"])
@pytest.mark.parametrize("skip_type", ["time_uniform", "time_quadratic", "logSNR"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_solves_the_ode(variant, skip_type, order):
    def smooth_eps(x, t):
        path = unipc.Path(TABLE)
        a = path.alpha((t + 1) / 1000) ** 2
        return x * math.sqrt(1 - a) / (a * S**2 + 1 - a)

    x = X / SPAN[1]
    found = unipc.unipc(smooth_eps, x, 60, TABLE, unipc.UniPCOptions(variant, skip_type, order))
    difference = float((found - vp_exact(x, 999, 0)).abs().max())
    if skip_type == "logSNR" and variant != "vary_coeff":  # even steps in lambda, where the order is the one promised
        assert difference < {1: 1e-2, 2: 1e-3, 3: 1e-4}[order]
    else:
        assert difference < 0.06


def test_unipc_needs_as_many_steps_as_its_order():
    with pytest.raises(UserError, match="order 3"):
        unipc.unipc(eps, X, 2, TABLE, unipc.UniPCOptions())


def test_lcm_ends_at_the_last_denoised_picture():
    found = lcm.lcm(denoise, X, torch.tensor([5.0, 1.0, 0.0]), lambda *_: torch.ones_like(X))
    assert torch.allclose(found, denoise(denoise(X, 5.0) + 1.0, 1.0))
