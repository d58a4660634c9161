"""Noise: seeds, draws and their order."""
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain.sample.brownian import BrownianNoise
from lib_sdtrain.sample.noise import ImageNoise, NoisePlan, PhiloxSource, paste_centre, philox4x32, slerp

CPU = torch.device("cpu")
SHAPE = (4, 6, 8)


def drawn(count, plan, shape=SHAPE):
    noise = ImageNoise(shape, plan, CPU)
    return [noise.next() for _ in range(count)]


def test_philox_gives_what_a_cuda_device_draws_for_seed_0():
    wanted = torch.tensor([[-0.92466259, -0.42534415, -2.6438457, 0.14518388],
                           [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
                           [-1.07454231, -0.36314407, -1.67105067, 2.26550497]])
    assert torch.allclose(PhiloxSource(0).randn((3, 4)), wanted, atol=1e-6)


@pytest.mark.parametrize(("counter", "key", "wanted"), [
    ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0),
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
])
def test_philox_known_answers(counter, key, wanted):
    """Random123's published test vectors for philox4x32-10."""
    found = philox4x32(np.array(counter, dtype=np.uint32).reshape(4, 1), key)
    assert found.ravel().tolist() == wanted


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=4), st.sampled_from(["GPU", "CPU", "NV"]),
       st.integers(0, 3), st.sampled_from([0, 31337]))
@settings(max_examples=25, deadline=None)
def test_a_batch_draws_what_its_images_draw_alone(seeds, kind, count, ensd):
    batch = drawn(count + 1, NoisePlan(tuple(seeds), ensd=ensd, kind=kind))
    alone = [drawn(count + 1, NoisePlan((seed,), ensd=ensd, kind=kind)) for seed in seeds]
    for step, together in enumerate(batch):
        assert torch.equal(together, torch.cat([image[step] for image in alone]))


def test_the_first_draw_is_torchs_own_for_the_seed():
    wanted = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn(1, NoisePlan((7,)))[0][0], wanted)


def test_ensd_changes_all_but_the_first_draw():
    plain, shifted = drawn(3, NoisePlan((7,))), drawn(3, NoisePlan((7,), ensd=10))
    assert torch.equal(plain[0], shifted[0])
    assert torch.equal(shifted[1], drawn(1, NoisePlan((17,)))[0])
    assert not torch.equal(plain[1], shifted[1])


def test_a_variation_goes_from_the_seed_to_the_subseed():
    seed, subseed = drawn(1, NoisePlan((7,)))[0], drawn(1, NoisePlan((9,)))[0]
    whole = drawn(1, NoisePlan((7,), (9,), 1.0))[0]
    part = drawn(1, NoisePlan((7,), (9,), 0.3))[0]
    assert torch.allclose(whole, subseed, atol=1e-5)
    assert (part - seed).norm() < (part - subseed).norm()


def test_parallel_noises_are_mixed_linearly():
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(slerp(0.25, x, 2 * x), x * 0.25 + 2 * x * 0.75)


@pytest.mark.parametrize("size", [(2, 3), (10, 20), (6, 8), (10, 3), (5, 9)])
def test_pasting_keeps_the_centres_together(size):
    patch = torch.arange(float(np.prod(size))).reshape(1, *size)
    canvas = paste_centre(torch.full((1, 6, 8), -1.0), patch)
    rows, columns = min(size[0], 6), min(size[1], 8)
    kept = canvas[canvas >= 0]
    assert len(kept) >= (rows - 1) * (columns - 1)
    assert set(kept.tolist()) <= set(patch.ravel().tolist())


def test_seed_resize_keeps_the_composition_of_the_other_size():
    small = drawn(1, NoisePlan((7,)), (4, 4, 4))[0]
    resized = drawn(1, NoisePlan((7,), resize_from=(32, 32)))[0]
    assert torch.equal(resized[:, :, 1:5, 2:6], small)


def test_nothing_reads_or_moves_the_global_generator():
    state = torch.get_rng_state()
    drawn(3, NoisePlan((7, 8), (1, 2), 0.5, (16, 16), 3))
    draws = BrownianNoise([1, 2], SHAPE, torch.tensor([14.0, 1.0, 0.1, 0.0]), torch_draw)
    draws(14.0, 1.0)
    assert torch.equal(state, torch.get_rng_state())


def torch_draw(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_brownian_noise_is_that_of_torchsde():
    torchsde = pytest.importorskip("torchsde")
    sigmas = torch.tensor([14.6146, 9.1, 5.2, 3.3, 1.1, 0.4, 0.0291675, 0.0])
    noise = BrownianNoise([1234567, 5], SHAPE, sigmas, torch_draw)
    trees = [torchsde.BrownianTree(sigmas[-2], torch.zeros(SHAPE), sigmas[0], entropy=seed) for seed in (1234567, 5)]
    for high, low in pairwise(sigmas[1:-1]):
        wanted = -torch.stack([tree(low, high) for tree in trees]) / (high - low).sqrt()
        assert torch.allclose(noise(float(high), float(low)), wanted, atol=2e-6)


def test_brownian_noise_adds_up_over_any_steps():
    def path(*sigmas):
        noise = BrownianNoise([3], SHAPE, torch.tensor([14.0, 0.03]), torch_draw)
        return sum(noise(a, b) * (a - b) ** 0.5 for a, b in pairwise(sigmas))

    assert torch.allclose(path(14.0, 0.03), path(14.0, 6.5, 6.1, 2.0, 0.3, 0.03), atol=1e-4)
    assert torch.equal(BrownianNoise([3], SHAPE, torch.tensor([14.0, 0.03]), torch_draw)(2.0, 1.0),
                       BrownianNoise([3], SHAPE, torch.tensor([14.0, 0.03]), torch_draw)(2.0, 1.0))


def test_brownian_noise_has_unit_variance():
    noise = BrownianNoise([3], (4, 64, 64), torch.tensor([14.0, 0.03]), torch_draw)
    for high, low in ((14.0, 9.0), (9.0, 0.5), (0.5, 0.1)):
        assert float(noise(high, low).std()) == pytest.approx(1.0, abs=0.03)
