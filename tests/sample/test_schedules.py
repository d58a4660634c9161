"""Noise levels and schedule types against the WebUI's own numbers and against scipy."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.schedule import alphas_cumprod
from lib_sdtrain.sample.levels import ConsistencyLevels, NoiseLevels
from lib_sdtrain.sample.plan import noise_table, sigmas, timesteps
from lib_sdtrain.sample.samplers.registry import SAMPLERS, find_sampler, split_name
from lib_sdtrain.sample.schedule_names import SCHEDULE_NAMES
from lib_sdtrain.sample.schedules import FUNCTIONS, Range
from lib_sdtrain.sample.special import beta_cdf, beta_quantile
from lib_sdtrain.settings.sample import SampleOptions
from tests.sample.random_models import DATA

LEVELS = NoiseLevels(alphas_cumprod())
WHOLE = Range(LEVELS, LEVELS.sigma_min, LEVELS.sigma_max)
THEIRS = json.loads((DATA / "schedules.json").read_text())


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_a_schedule_is_the_webuis(name):
    kind, *sdxl, steps = name.split()
    made = FUNCTIONS[kind](int(steps), Range(LEVELS, LEVELS.sigma_min, LEVELS.sigma_max, sdxl=bool(sdxl)))
    assert made.dtype == torch.float32
    assert made.tolist() == pytest.approx(THEIRS[name], rel=2e-6)


def test_every_name_has_a_function():
    assert {name.name for name in SCHEDULE_NAMES} - {"automatic"} == set(FUNCTIONS)


@given(st.integers(1, 150), st.sampled_from(sorted(FUNCTIONS)))
def test_schedules_fall_from_the_highest_level(steps, kind):
    made = FUNCTIONS[kind](steps, WHOLE)
    assert (made[1:] <= made[:-1]).all()
    assert made[0] <= LEVELS.sigma_max * 1.001
    assert made[-1] == 0 or kind == "kl_optimal"


@given(st.floats(0, 999))
def test_levels_and_timesteps_are_inverse(t):
    assert float(LEVELS.t(LEVELS.sigma(torch.tensor(t)))) == pytest.approx(t, abs=0.02)


def test_quantised_levels_are_whole_timesteps():
    t = NoiseLevels(alphas_cumprod(), quantize=True).t(3.333)
    assert float(t) == round(float(LEVELS.t(3.333)))


def test_consistency_levels_are_every_twentieth():
    levels = ConsistencyLevels(alphas_cumprod())
    assert torch.equal(levels.sigmas, LEVELS.sigmas[19::20])
    assert float(levels.t(levels.sigma_max)) == 999
    assert float(levels.sigma(torch.tensor(999.0))) == pytest.approx(levels.sigma_max)


@pytest.mark.parametrize(("steps", "count", "last"), [(12, 13, 997), (20, 20, 951), (50, 50, 981), (1000, 1000, 999)])
def test_timesteps_are_ldms(steps, count, last):
    visit = timesteps(find_sampler("DDIM"), steps, SampleOptions())
    assert len(visit) == count
    assert visit[0] == 1
    assert visit[-1] == last


def test_more_steps_than_the_model_has_is_a_mistake():
    with pytest.raises(UserError, match="steps"):
        timesteps(find_sampler("DDIM"), 1001, SampleOptions())


def test_discarding_leaves_out_the_next_to_last_level():
    whole = sigmas(find_sampler("DPM2"), "karras", 9, LEVELS, SampleOptions())
    kept = sigmas(find_sampler("Euler"), "karras", 10, LEVELS, SampleOptions())
    assert torch.equal(whole, torch.cat([kept[:-2], kept[-1:]]))


def test_zero_terminal_snr_ends_in_almost_pure_noise():
    table = noise_table(alphas_cumprod(), SampleOptions(sd_noise_schedule="Zero Terminal SNR"))
    assert float(table[-1]) == pytest.approx(4.8973451890853435e-08)
    assert float(table[0]) == pytest.approx(float(alphas_cumprod()[0]))


@pytest.mark.parametrize(("written", "found"), [
    (("DPM++ 2M Karras", None), ("DPM++ 2M", "Karras")),
    (("DPM++ 2M SDE Heun Exponential", "Automatic"), ("DPM++ 2M SDE Heun", "Exponential")),
    (("Euler SGMUniform", None), ("Euler", "SGM Uniform")),
    (("DDIM", "karras"), ("DDIM", "Karras")),
    (("k_euler_a", None), ("Euler a", "Automatic")),
])
def test_old_names_end_in_their_schedule(written, found):
    assert split_name(*written) == found


def test_unknown_names_are_mistakes_that_list_the_known():
    with pytest.raises(UserError, match="DPM adaptive"):
        find_sampler("Eular")
    with pytest.raises(UserError, match="Polyexponential"):
        split_name("Euler", "Carrot")


def test_there_are_the_webuis_twenty_samplers():
    assert len(SAMPLERS) == 20


@given(st.floats(0.001, 0.999), st.floats(0.2, 5), st.floats(0.2, 5))
def test_beta_quantile_inverts_the_distribution(p, a, b):
    assert beta_cdf(beta_quantile(p, a, b), a, b) == pytest.approx(p, abs=1e-9)


def test_beta_quantile_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for p in np.linspace(0, 1, 23):
        assert beta_quantile(float(p), 0.6, 0.6) == pytest.approx(stats.beta.ppf(p, 0.6, 0.6), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["normal", "sgm_uniform"])
def test_schedules_read_a_table_in_half_precision_in_that_precision(kind):
    table = alphas_cumprod().half()
    levels = NoiseLevels(table)
    made = FUNCTIONS[kind](7, Range(levels, levels.sigma_min, levels.sigma_max))
    assert float(levels.t(levels.sigma_max)) == 999
    assert float(made[0]) == pytest.approx(float(levels.log_sigmas[-1].float().exp()), rel=1e-6)
    between = float(levels.sigmas[500] + levels.sigmas[501]) / 2
    assert levels.t(torch.tensor([between])).dtype == torch.float32


def test_consistency_levels_are_computed_in_full_precision():
    table = alphas_cumprod().half()
    assert torch.equal(ConsistencyLevels(table).sigmas, ConsistencyLevels(table.float()).sigmas)
