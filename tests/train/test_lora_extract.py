"""Extracting a LoRA: exact where the change has low rank, nearest otherwise, and baking it in gives the model back."""
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_sdtrain.cli.main import main
from lib_sdtrain.train.lora_extract import low_rank
from tests.tiny import write_tiny


def test_the_product_is_the_nearest_of_its_rank():
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(40, 60, generator=generator) @ torch.diag(0.8 ** torch.arange(60.0))
    sizes = torch.linalg.svdvals(change)
    for rank in (1, 4, 16, 64):
        down, up = low_rank(change, rank, generator)
        rest = float((change - up @ down).norm())
        assert rest == pytest.approx(float(sizes[rank:].norm()), rel=0.01, abs=1e-4)
        assert down.shape[0] == up.shape[1] == min(rank, 40)


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_what_is_extracted_and_baked_in_is_the_tuned_model(tmp_path, name, capsys):
    """Changes of rank 2 in linear layers, joined q, k and v, and a convolution; nothing else differs."""
    base = write_tiny(tmp_path / "base.safetensors", name, dtype=torch.float32)
    tensors = load_file(base)
    text = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    changed = ["model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
               "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"] + ([text] if name == "sdxl" else [])
    tuned = dict(tensors)
    for number, key in enumerate(changed):
        rows = tensors[key].flatten(1)
        generator = torch.Generator().manual_seed(number)
        factors = torch.randn(len(rows), 2, generator=generator), torch.randn(2, rows.shape[1], generator=generator)
        tuned[key] = tensors[key] + 0.1 * (factors[0] @ factors[1]).reshape(tensors[key].shape)
    save_file(tuned, tmp_path / "tuned.safetensors")
    (tmp_path / "tuned.yaml").write_bytes(base.with_suffix(".yaml").read_bytes())
    lora, out = tmp_path / "lora.safetensors", tmp_path / "baked.safetensors"
    assert main(["lora-extract", str(base), str(tmp_path / "tuned.safetensors"), "--out", str(lora), "--rank", "2",
                 "--conv-rank", "2", "--json"]) == 0  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert document["layers"] == (5 if name == "sdxl" else 2)  # q, k and v are layers of their own
    assert document["kept"] == pytest.approx(1.0, abs=1e-3)
    assert main(["lora-bake", str(base), f"{lora}:1", "--out", str(out)]) == 0
    baked = load_file(out)
    for key in tensors:
        wanted = tuned[key].float()
        assert float((baked[key].float() - wanted).abs().max()) < 2e-3, key
        if key in changed:
            assert float((wanted - tensors[key]).abs().max()) > 0.1


def test_equal_models_and_other_families_are_refused(tmp_path, capsys):
    base, other = write_tiny(tmp_path / "a.safetensors"), write_tiny(tmp_path / "b.safetensors", "sd2")
    out = str(tmp_path / "lora.safetensors")
    assert main(["lora-extract", str(base), str(base), "--out", out]) == 2
    assert "equal in every layer" in capsys.readouterr().err
    assert main(["lora-extract", str(base), str(other), "--out", out]) == 2
    assert "give two checkpoints of one family" in capsys.readouterr().err
    assert main(["lora-extract", str(base), str(other), "--out", str(tmp_path / "lora.ckpt")]) == 2
    assert not (tmp_path / "lora.safetensors").exists()


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_neither_model_is_replaced_by_the_lora(tmp_path, capsys, which):
    base, tuned = write_tiny(tmp_path / "base.safetensors", seed=1), write_tiny(tmp_path / "tuned.safetensors", seed=2)
    out = {"base": base, "tuned": tuned}[which]
    before = out.read_bytes()
    assert main(["lora-extract", str(base), str(tuned), "--out", str(out)]) == 2
    assert f"out: {out} is one of the files that are read" in capsys.readouterr().err
    assert out.read_bytes() == before
