"""Whole merges: which tensor takes which weight, and everything that a file may lack or have too much."""

import pytest
import torch

from lib_sdtrain.merge.blocks import CONVENTIONS, KEEP, LAYOUTS, block_of
from tests.merge.models import POSITION_IDS, UNET, VAE, merged, read, run, same, state, write

FIRST = UNET + "input_blocks.0.0.weight"
RATIOS = {"sd1": [round(0.03 + 0.03 * n, 2) for n in range(26)], "sdxl": [round(0.03 + 0.03 * n, 2) for n in range(20)]}


def text(numbers):
    return ",".join(map(str, numbers))




@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_every_tensor_takes_the_weight_of_its_block(tmp_path, name, convention):
    """With A = 0 and B = 1 everywhere a value of the result is the weight that was used for it."""
    a = write(tmp_path / "a.safetensors", state(name, fill=0, dtype=torch.float32))
    b = write(tmp_path / "b.safetensors", state(name, fill=1, dtype=torch.float32))
    result = merged(tmp_path, a=a, b=b, weights_alpha=text(RATIOS[name]), blocks=convention)
    layout = LAYOUTS[name]
    for key, tensor in result.items():
        block = block_of(key, layout, convention)
        if tensor.is_floating_point() and tensor.shape != (10,):
            expected = 0.0 if block == KEEP else RATIOS[name][layout.names.index(block)]
            assert torch.all((tensor - expected).abs() < 1e-6), key


def test_weighted_sums_equal_float64_rounded_once(tmp_path, pair):
    weights = RATIOS["sd1"]
    result = merged(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=text(weights))
    a, b = read(pair["a"]), read(pair["b"])
    names, other, total = LAYOUTS["sd1"].names, 0, 0
    for key, tensor in result.items():
        block = block_of(key, LAYOUTS["sd1"])
        if block == KEEP:
            assert torch.equal(tensor, a[key])
            continue
        w = weights[names.index(block)]
        exact = ((1 - w) * a[key].double() + w * b[key].double()).half()
        apart = (tensor.view(torch.int16).int() - exact.view(torch.int16).int()).abs()
        near_zero = exact.abs() < 1e-3
        assert torch.all((apart <= 1) | near_zero)
        other, total = other + int((apart > 0).sum()), total + tensor.numel()
    assert other < 0.002 * total


@pytest.mark.parametrize("method", ["weighted_sum", "add_difference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_fp16_arithmetic_repeats_the_webui_bit_for_bit(tmp_path, method, dtype):
    """The WebUI computes in the checkpoints' dtype, rounding after every operation."""
    models = {x: state(seed=n, dtype=dtype) for n, x in enumerate("abc")}
    for tensors in models.values():
        tensors[FIRST][0, 0, 0, 0] = -0.0  # 0 * B + 1 * A is not A there
    paths = {x: write(tmp_path / f"{x}.safetensors", tensors) for x, tensors in models.items()}
    used = paths if method == "add_difference" else {x: paths[x] for x in "ab"}
    for alpha in (0.0, 0.35, 1.0):
        result = merged(tmp_path, **used, method=method, alpha=alpha, arithmetic="fp16")
        expected = dict(models["a"])
        for key, a in models["a"].items():
            if "model" in key and not key.endswith("position_ids"):
                b, c = models["b"][key], models["c"][key]
                expected[key] = a + (alpha * (b - c)) if method == "add_difference" else ((1 - alpha) * a) + (alpha * b)
        assert same(result, expected)


def test_fp16_arithmetic_repeats_merge_block_weighted_bit_for_bit(tmp_path, pair):
    weights = RATIOS["sd1"]
    result = merged(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=text(weights), arithmetic="fp16")
    a, b = read(pair["a"]), read(pair["b"])
    for key, tensor in result.items():
        if UNET + "input_blocks.4." in key or UNET + "time_embed" in key or key.startswith(VAE):
            w = weights[5 if "input_blocks.4." in key else 1 if "time_embed" in key else 0]
            assert torch.equal(tensor, (1 - w) * a[key] + w * b[key]), key


def test_all_weights_zero_is_a_and_all_one_is_b_bit_for_bit(tmp_path, pair):
    a, b = read(pair["a"]), read(pair["b"])
    assert same(merged(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=text([0] * 26)), a)
    ones = merged(tmp_path, a=pair["a"], b=pair["b"], weights_alpha="ALL_B")
    kept = {key: a[key] for key in a if block_of(key, LAYOUTS["sd1"]) == KEEP}
    assert same(ones, {**b, **kept})


def test_equal_block_weights_make_the_same_file_as_one_weight(tmp_path, pair):
    plain, _ = run(tmp_path, a=pair["a"], b=pair["b"], alpha=0.3)
    out = str(tmp_path / "blocks.safetensors")
    blocks, _ = run(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=text([0.3] * 26), out=out)
    assert plain["sha256"] == blocks["sha256"]


@pytest.mark.parametrize("numerator", [1, 77, 128, 255])
def test_exchanging_the_models_and_the_weight_changes_nothing(tmp_path, pair, numerator):
    w = numerator / 256
    there = merged(tmp_path, a=pair["a"], b=pair["b"], alpha=w)
    back = merged(tmp_path, a=pair["b"], b=pair["a"], alpha=1 - w)
    assert same(*({key: t for key, t in x.items() if t.shape != (10,)} for x in (there, back)))


def test_neither_threads_nor_pieces_change_a_bit(tmp_path, pair, monkeypatch):
    outs = []
    for threads, piece, stride in [(1, 2**20, 2**18), (3, 7, 3), (2, 20, 5)]:
        monkeypatch.setattr("lib_sdtrain.merge.compute.PIECE", piece)
        monkeypatch.setattr("lib_sdtrain.merge.compute._STRIDE", stride)
        outs.append(run(tmp_path, a=pair["a"], b=pair["b"], alpha=0.3, threads=threads)[0]["sha256"])
    assert len(set(outs)) == 1


@pytest.mark.parametrize("method", ["triple_sum", "sum_twice"])
def test_beta_goes_by_block_too(tmp_path, method):
    values = {"a": 1.0, "b": 2.0, "c": 5.0}
    paths = {x: write(tmp_path / f"{x}.safetensors", state(fill=v, dtype=torch.float32)) for x, v in values.items()}
    alphas, betas = RATIOS["sd1"], RATIOS["sd1"][::-1]
    result = merged(tmp_path, **paths, method=method, weights_alpha=text(alphas), weights_beta=text(betas))
    w, v = alphas[13], betas[13]
    one = {"triple_sum": (1 - w - v) * 1 + w * 2 + v * 5, "sum_twice": (1 - v) * ((1 - w) * 1 + w * 2) + v * 5}[method]
    assert result[UNET + "middle_block.0.in_layers.2.weight"].unique().item() == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize(
    "method", ["smooth_add_difference", "cosine_a", "cosine_b", "tensor_swap", "slerp", "dare", "ties", "model_stock",
               "extract", "geometric", "multiply_difference", "self", "self_noise", "train_difference"],
)  # fmt: skip
def test_every_kind_of_method_runs_on_a_whole_checkpoint_and_repeats_itself(tmp_path, pair, method):
    from lib_sdtrain.merge.methods import all_methods

    used = {x: pair[x] for x in "abc"[: all_methods()[method].models]}
    first, _ = run(tmp_path, **used, method=method, alpha=0.4)
    result, a = read(first["out"]), read(pair["a"])
    assert same(result, merged(tmp_path, **used, method=method, alpha=0.4))
    assert result.keys() == a.keys()
    changed = [key for key in a if not torch.equal(result[key], a[key])]
    assert len(changed) > 500
    assert not any(block_of(key, LAYOUTS["sd1"]) == KEEP for key in changed)
    assert not any(key.startswith(VAE) for key in changed) or not method.startswith("cosine")
    assert all(tensor.isfinite().all() for tensor in result.values())


def test_a_seed_decides_random_methods(tmp_path, pair):
    hashes = {
        run(tmp_path, a=pair["a"], b=pair["b"], method="dare", alpha=0.5, seed=seed)[0]["sha256"] for seed in (0, 1, 0)
    }
    assert len(hashes) == 2


def test_more_models_take_part_in_methods_for_any_number(tmp_path, pair):
    used = {"a": pair["a"], "b": pair["b"], "method": "ties", "alpha": 1.0, "density": 1.0}
    two = merged(tmp_path, **used)
    three = merged(tmp_path, **used, model=[pair["c"]])
    as_c = merged(tmp_path, **used, c=pair["c"])
    assert not same(two, three)
    assert same(three, as_c)


@pytest.mark.parametrize("wanted", ["fp16", "bf16", "fp32", "fp8_e4m3", "fp8_e5m2"])
def test_the_precision_of_the_file_is_that_asked_for(tmp_path, pair, wanted):
    result = merged(tmp_path, a=pair["a"], b=pair["b"], alpha=0.3, dtype=wanted)
    a, b = read(pair["a"]), read(pair["b"])
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp8_e4m3": torch.float8_e4m3fn,
              "fp8_e5m2": torch.float8_e5m2}  # fmt: skip
    exact = ((1 - 0.3) * a[FIRST].float() + 0.3 * b[FIRST].float()).to(dtypes[wanted])
    assert result[FIRST].dtype == dtypes[wanted]
    assert torch.equal(result[FIRST].float(), exact.float())
    assert result["alphas_cumprod"].dtype == torch.float32
    assert result[POSITION_IDS["sd1"]].dtype == torch.int64
    norm = result[UNET + "out.0.weight"].dtype
    assert norm == (torch.float16 if wanted.startswith("fp8") else dtypes[wanted])


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_without_a_wish_each_tensor_keeps_the_precision_of_a(tmp_path, stored):
    a, b = state(seed=1, dtype=stored), state(seed=2)
    result = merged(tmp_path, a=write(tmp_path / "a.safetensors", a), b=write(tmp_path / "b.safetensors", b), alpha=0.5)
    assert {key: t.dtype for key, t in result.items()} == {key: t.dtype for key, t in a.items()}
    exact = (0.5 * a[FIRST].float() + 0.5 * b[FIRST].float()).to(stored)
    assert torch.equal(result[FIRST].float(), exact.float())
