"""Distances between checkpoints, by block and kind of layer."""
import math

import numpy as np
import pytest
import torch

from lib_sdtrain.errors import Cancelled, UserError
from lib_sdtrain.events import CancelToken
from lib_sdtrain.merge.distance import compare, measure
from tests.merge.models import UNET, state, write


def document(a, b):
    return list(compare(a, b, CancelToken()))[-1].result


def test_the_sums_of_two_tensors_are_those_of_numpy():
    a, b = (torch.from_numpy(np.random.default_rng(n).normal(size=(30, 20)).astype(np.float16)) for n in (1, 2))
    x, y = a.double().numpy(), b.double().numpy()
    found = measure(a, b).as_dict()
    assert found["distance"] == pytest.approx(np.linalg.norm(y - x) / math.sqrt(((x**2).sum() + (y**2).sum()) / 2))
    assert found["cosine"] == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-7)
    assert found["largest"] == abs(y - x).max()
    assert found["weights"] == 600


def test_only_what_differs_is_far(tmp_path):
    a, b = state(seed=1), state(seed=1)
    b[UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"] *= 2
    b[UNET + "output_blocks.3.0.in_layers.2.weight"] *= 0
    found = document(*(write(tmp_path / f"{x}.safetensors", t) for x, t in (("a", a), ("b", b))))
    far = {block for block, numbers in found["blocks"].items() if numbers["distance"] > 0}
    assert far == {"IN04", "OUT03"}
    numbers = range(12)
    assert list(found["blocks"]) == ["BASE", *(f"IN{n:02d}" for n in numbers), "M00", *(f"OUT{n:02d}" for n in numbers)]
    cells = found["layers"]["IN04"]
    assert {kind for kind, numbers in cells.items() if numbers["distance"] > 0} == {"cross-attention"}
    assert found["layers"]["OUT03"]["conv"]["distance"] > found["layers"]["OUT03"]["norm"]["distance"] == 0
    key = UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    largest = a[key].abs().max().item()
    expected = {"distance": 1 / math.sqrt(2.5), "cosine": 1, "largest": largest, "weights": 16}
    assert found["tensors"][key] == pytest.approx(expected)
    assert found["tensors"][UNET + "output_blocks.3.0.in_layers.2.weight"]["distance"] == pytest.approx(math.sqrt(2))


def test_tensors_that_are_never_merged_are_not_counted(tmp_path):
    a, b = state(seed=1), state(seed=2)  # other schedule buffers, other weights
    found = document(*(write(tmp_path / f"{x}.safetensors", t) for x, t in (("a", a), ("b", b))))
    assert not any(key.endswith("position_ids") or "alphas" in key or "betas" in key for key in found["tensors"])
    assert all(numbers["distance"] == pytest.approx(math.sqrt(2), rel=0.2) for numbers in found["blocks"].values())


def test_other_families_are_refused_and_a_stop_is_heard(tmp_path):
    a, xl = write(tmp_path / "a.safetensors", state()), write(tmp_path / "xl.safetensors", state("sdxl"))
    with pytest.raises(UserError, match="only models of one family"):
        document(a, xl)
    token = CancelToken()
    token.stop_now()
    with pytest.raises(Cancelled):
        list(compare(a, a, token))
