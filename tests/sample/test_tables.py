"""The noise table that a model is sampled on is the one that it was trained on."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.sample.tables import alphas_cumprod_of
from tests.tiny import ldm_yaml, random_tensors, tiny_family, write_checkpoint

LAST = 4.8973451890853435e-08


def table_of(path, tensors):
    write_checkpoint(path, tensors, {"format": "pt"}, ldm_yaml(tiny_family()))
    checkpoint = open_checkpoint(path)
    return checkpoint.family, alphas_cumprod_of(SimpleNamespace(family=checkpoint.family, checkpoint=checkpoint))


@pytest.mark.parametrize("already", [False, True])
def test_a_file_with_its_own_table_and_zero_terminal_snr_ends_in_noise(tmp_path, already):
    tensors = {**random_tensors(tiny_family()), "ztsnr": torch.tensor([])}
    family, _ = table_of(tmp_path / "a.safetensors", tensors)
    trained = family.schedule.table()
    if already:
        tensors["alphas_cumprod"] = trained
    _, table = table_of(tmp_path / "b.safetensors", tensors)
    assert float(trained[-1]) == 0
    assert float(table[-1]) == pytest.approx(LAST)
    assert torch.allclose(table[:-1], trained[:-1])


def test_a_file_without_the_marker_keeps_its_own_table(tmp_path):
    tensors = random_tensors(tiny_family())
    tensors["alphas_cumprod"] = tensors["alphas_cumprod"] * 0.99
    _, table = table_of(tmp_path / "a.safetensors", tensors)
    assert torch.equal(table, tensors["alphas_cumprod"])
