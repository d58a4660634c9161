"""Every method against its formula in float64, worked out element by element with numpy."""
import itertools

import numpy as np
import pytest
import torch

from lib_sdtrain.merge.compute import survey_span
from lib_sdtrain.merge.methods import all_methods
from lib_sdtrain.merge.methods.filters import gaussian_filter, median_filter
from lib_sdtrain.settings.merge import METHODS

SHAPES = [(6, 5), (4, 3, 3, 3), (7,)]
WEIGHTS = [(0.0, 0.0), (0.25, 0.5), (0.7, 0.1), (1.0, 0.0), (1.3, -0.2)]


def tensors(shape, count, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return [rng.normal(0, 0.1, shape).astype(np.float32) for _ in range(count)]


def call(name, arrays, **params):
    method = all_methods()[name]
    given = {key: value for key, value in params.items() if key in method.params}
    before = [array.copy() for array in arrays]
    result = method.function(*[torch.from_numpy(array) for array in arrays], **given)
    assert all(np.array_equal(array, old) for array, old in zip(arrays, before, strict=True)), "changed its arguments"
    assert result.dtype == torch.float32
    return result.double().numpy()


def close(found, expected, tolerance=2e-6):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 0.1)


def weighted(a, b, c, w, v):
    return (1 - w) * a + w * b


def add(a, b, c, w, v):
    return a + w * (b - c)


def triple(a, b, c, w, v):
    return (1 - w - v) * a + w * b + v * c


def twice(a, b, c, w, v):
    return (1 - v) * weighted(a, b, c, w, v) + v * c


def train(a, b, c, w, v):
    result = a.copy()
    for index in np.ndindex(a.shape):
        learnt, apart = b[index] - c[index], b[index] - a[index]
        if learnt or apart:
            result[index] += 1.8 * w * abs(apart) / (abs(learnt) + abs(apart)) * np.sign(learnt) * abs(learnt)
    return result


def similarity(a, b, c, w, v):
    s = v * (a * b / np.maximum(abs(a), abs(b)) ** 2 + 1) / 2
    return (1 - s) * (a + w * (b - c)) + s * ((1 - w / 2) * a + w / 2 * b)


def multiply(a, b, c, w, v):
    return c + np.copysign(abs(a - c) ** (1 - w) * abs(b - c) ** w, (1 - v) * a + v * b - c)


def geometric(a, b, c, w, v):
    return (a.astype(complex) ** (1 - w) * b.astype(complex) ** w).real


def extract(a, b, c, w, v, gamma=1.0):
    one, two = b - a, c - a
    cosine = (one * two).sum(-1) / np.sqrt((one**2).sum(-1) * (two**2).sum(-1))
    g = ((np.clip(cosine, -1, 1)[..., None] + 1) / 2) ** gamma
    return a + ((1 - w) * one + w * two) * ((1 - v) * g + v * (1 - g))


def slerp(a, b, c, w, v):
    sizes = np.linalg.norm(a), np.linalg.norm(b)
    angle = np.arccos((a * b).sum() / sizes[0] / sizes[1])
    arc = (np.sin((1 - w) * angle) * a / sizes[0] + np.sin(w * angle) * b / sizes[1]) / np.sin(angle)
    return ((1 - w) * sizes[0] + w * sizes[1]) * arc


ORACLES = {
    "weighted_sum": weighted, "add_difference": add, "triple_sum": triple, "sum_twice": twice, "extract": extract,
    "train_difference": train, "similarity_add_difference": similarity, "slerp": slerp,
}  # fmt: skip


def test_every_method_that_can_be_chosen_exists_and_explains_itself():
    assert sorted(all_methods()) == sorted(METHODS)
    for method in all_methods().values():
        assert all((method.title, method.formula, method.sentence, method.source, method.function.__doc__))
        assert method.uses_beta == (method.beta is not None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(ORACLES))
@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
def test_a_method_equals_its_formula(name, shape, alpha, beta):
    arrays = tensors(shape, 3)
    wide = [array.astype(np.float64) for array in arrays]
    found = call(name, arrays[: all_methods()[name].models], alpha=alpha, beta=beta, gamma=1.0)
    close(found, ORACLES[name](*wide, alpha, beta), 5e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.5), (0.25, 0.0), (0.5, 1.0), (1.0, 0.3)])
@pytest.mark.parametrize(("name", "oracle"), [("multiply_difference", multiply), ("geometric", geometric)])
def test_methods_of_powers_equal_their_formulas(name, oracle, alpha, beta):
    arrays = tensors((5, 6), 3)
    wide = [array.astype(np.float64) for array in arrays]
    found = call(name, arrays[: all_methods()[name].models], alpha=alpha, beta=beta)
    close(found, oracle(*wide, alpha, beta), 5e-6)


def test_gamma_sharpens_the_extraction():
    arrays = tensors((6, 5), 3)
    wide = [array.astype(np.float64) for array in arrays]
    found = call("extract", arrays, alpha=0.4, beta=0.2, gamma=3.0)
    close(found, extract(*wide, 0.4, 0.2, gamma=3.0), 5e-6)


def test_where_nothing_differs_nothing_is_added():
    a, b, _ = tensors((4, 4), 3)
    assert np.array_equal(call("train_difference", [a, b, b], alpha=0.7), a.astype(np.float64))
    assert np.array_equal(call("train_difference", [a, a, a], alpha=0.7), a.astype(np.float64))
    zero = np.zeros((4, 4), np.float32)
    assert np.array_equal(call("similarity_add_difference", [zero, zero, zero], alpha=0.5, beta=0.4), zero)
    assert np.array_equal(call("model_stock", [a, a, b], alpha=1.0), a.astype(np.float64))
    assert np.array_equal(call("slerp", [zero, zero], alpha=0.3), zero)
    close(call("slerp", [a, a * 3], alpha=0.5), a.astype(np.float64) * 2)


@pytest.mark.parametrize("shape", [(7,), (5, 4), (3, 4, 3), (3, 2, 3, 3)])
def test_the_median_filter_takes_the_middle_of_all_neighbours(shape):
    (values,) = tensors(shape, 1)
    padded = np.pad(values, 1, mode="symmetric")
    expected = np.empty(shape)
    for index in np.ndindex(shape):
        expected[index] = np.median(padded[tuple(slice(i, i + 3) for i in index)])
    np.testing.assert_array_equal(median_filter(torch.from_numpy(values)).numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("shape", [(7,), (5, 4), (3, 2, 3, 3)])
def test_the_gaussian_filter_weighs_neighbours_by_distance(shape):
    (values,) = tensors(shape, 1)
    kernel = np.exp(-0.5 * np.arange(-4.0, 5.0) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values.astype(np.float64), 4, mode="symmetric")
    expected = np.zeros(shape)
    for offsets in itertools.product(range(9), repeat=len(shape)):
        window = padded[tuple(slice(o, o + n) for o, n in zip(offsets, shape, strict=True))]
        expected += np.prod(kernel[list(offsets)]) * window
    close(gaussian_filter(torch.from_numpy(values)).double().numpy(), expected, 1e-6)


def test_smooth_add_difference_filters_the_difference_only():
    a, b, c = tensors((5, 4), 3)
    smooth = gaussian_filter(median_filter(torch.from_numpy(b - c))).double().numpy()
    close(call("smooth_add_difference", [a, b, c], alpha=0.6), a + 0.6 * smooth)
    one = a[:1, :1]
    close(call("smooth_add_difference", [one, one * 0 + 0.25, one * 0], alpha=2.0), one + 0.5)


def cosine(x, y):
    return (x * y).sum(0) / np.sqrt((x**2).sum(0) * (y**2).sum(0))


@pytest.mark.parametrize("name", ["cosine_a", "cosine_b"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_cosine_merges_keep_what_is_alike(name, alpha):
    a, b = (array.astype(np.float64) for array in tensors((6, 5), 2))
    x, y = (a / np.linalg.norm(a, axis=0), b / np.linalg.norm(b, axis=0)) if name == "cosine_a" else (a, b)
    s = (cosine(x, y) + cosine(x.reshape(-1), y.reshape(-1))) / 2
    low, high = -0.4, 0.5
    k = np.clip((s - low) / (high - low) - alpha, 0, 1)
    found = call(name, tensors((6, 5), 2), alpha=alpha, low=low, high=high)
    close(found, b * (1 - k) + a * k, 5e-6)


def test_the_survey_drops_the_outer_percent_as_supermerger_does():
    values = np.random.default_rng(0).normal(size=5000)
    kept = values[values >= np.percentile(values, 1, method="midpoint")]
    kept = kept[kept <= np.percentile(kept, 99, method="midpoint")]
    low, high = survey_span(torch.tensor([*values, float("nan")]))
    assert (low, high) == (kept.min(), kept.max())
    assert low > values.min()
    assert high < values.max()


@pytest.mark.parametrize(
    ("alpha", "beta", "from_b"), [(0.3, 0.2, range(2, 5)), (0.5, 0.5, range(5, 10)), (0.5, 0.8, [*range(3), 8, 9])]
)
def test_tensor_swap_takes_whole_rows(alpha, beta, from_b):
    a, b = tensors((10, 4), 2)
    expected = a.copy()
    expected[list(from_b)] = b[list(from_b)]
    assert np.array_equal(call("tensor_swap", [a, b], alpha=alpha, beta=beta), expected)


def test_tensor_swap_of_columns_needs_wide_tensors():
    a, b = tensors((10, 200), 2)
    found = call("tensor_swap_columns", [a, b], alpha=0.25, beta=0.5)
    assert np.array_equal(found[:, 100:150], b[:, 100:150])
    assert np.array_equal(found[:, :100], a[:, :100])
    assert np.array_equal(found[:, 150:], a[:, 150:])
    narrow = call("tensor_swap_columns", [a[:, :100], b[:, :100]], alpha=0.5, beta=0.0)
    assert np.array_equal(narrow, np.concatenate([b[:5, :100], a[5:, :100]]))


def test_ties_trims_elects_and_averages_those_that_agree():
    a = np.zeros((1, 6), np.float32)
    b = np.array([[4, -3, 2, 1, 0.5, 6]], np.float32)
    c = np.array([[2, 5, -1, 0.25, -8, 0.5]], np.float32)
    # density 0.5 keeps three values each: b 4, -3, 6; c 2, 5, -8. Signs of the sums: + + 0 0 - +.
    found = call("ties", [a, b, c], alpha=0.5, density=0.5)
    assert found.tolist() == [[0.5 * 3, 0.5 * 5, 0, 0, 0.5 * -8, 0.5 * 6]]


def test_ties_with_everything_kept_and_one_model_is_a_task_vector():
    a, b = tensors((5, 5), 2)
    close(call("ties", [a, b], alpha=0.4, density=1.0), a + 0.4 * (b.astype(np.float64) - a))


def test_dare_drops_a_share_and_scales_up_the_rest():
    a, b = tensors((200, 200), 2)
    found = call("dare", [a, b], alpha=0.5, drop_rate=0.75, generator=torch.Generator().manual_seed(3))
    change = (found - a) / (b.astype(np.float64) - a)
    kept = np.abs(change) > 1e-3
    np.testing.assert_allclose(change[kept], 0.5 / 0.25, rtol=1e-2)
    assert np.array_equal(found[~kept], a.astype(np.float64)[~kept])
    assert kept.mean() == pytest.approx(0.25, abs=0.01)  # four standard deviations of 40,000 draws


def test_model_stock_pulls_the_mean_back_as_far_as_fine_tunes_disagree():
    a, b, c, d = (array.astype(np.float64) for array in tensors((6, 5), 4))
    b, c, d = (a + 0.5 + 0.3 * x for x in (b, c, d))  # with something in common
    deltas = [x - a for x in (b, c, d)]
    pairs = [(x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y) for x, y in itertools.combinations(deltas, 2)]
    mean_cosine = np.mean(pairs)
    t = 3 * mean_cosine / (1 + 2 * mean_cosine)
    found = call("model_stock", [x.astype(np.float32) for x in (a, b, c, d)], alpha=1.0)
    close(found, a + t * np.mean(deltas, axis=0), 1e-5)


def test_self_scales_and_noise_is_normal():
    (a,) = tensors((300, 300), 1)
    close(call("self", [a], alpha=0.8), 0.8 * a.astype(np.float64))
    found = call("self_noise", [a], alpha=0.5, generator=torch.Generator().manual_seed(1))
    noise = (found - a) / 0.5
    assert abs(noise.mean()) < 0.015
    assert noise.std() == pytest.approx(1, abs=0.01)


EXACT = [
    (method, alpha, beta)
    for method in all_methods().values()
    for alpha, beta in itertools.product([0.0, 0.3, 1.0], [0.0, 0.4, 1.0])
    if method.exact(alpha, beta)
]


@pytest.mark.parametrize(("method", "alpha", "beta"), EXACT, ids=lambda value: getattr(value, "name", value))
def test_what_a_method_calls_an_exact_copy_is_what_it_computes(method, alpha, beta):
    exact = method.exact(alpha, beta)
    arrays = tensors((6, 5), max(method.models, 2))
    params = {
        "alpha": alpha, "beta": beta, "gamma": 1.0, "density": 0.5, "drop_rate": 0.5,
        "generator": torch.Generator().manual_seed(0),
    }  # fmt: skip
    given = arrays if method.many else arrays[: method.models]
    close(call(method.name, given, **params), dict(zip("abc", arrays, strict=False))[exact].astype(np.float64))


@pytest.mark.parametrize("method", [m for m in all_methods().values() if m.in_place], ids=lambda method: method.name)
@pytest.mark.parametrize("alpha", [0.1, 0.35, 0.77, 1.3])
def test_in_place_formulas_give_the_same_bits(method, alpha):
    given = [torch.from_numpy(array) for array in tensors((37, 53), method.models)]
    pure = method.function(*given, alpha=alpha)
    assert torch.equal(method.in_place(*[tensor.clone() for tensor in given], alpha=alpha), pure)
