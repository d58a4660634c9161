"""What `inspect` says of files."""
import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.hashes import HashCache
from lib_sdtrain.model.inspection import inspect
from tests.model.small_files import SD1, SD2, SDXL, small_tensors, write_small


@pytest.fixture(scope="module")
def tensors():
    return small_tensors(SD1, torch.float16, ema=True)


def test_a_checkpoint_is_described_completely(tmp_path, tensors):
    metadata = {"format": "pt", "sd_merge_recipe": '{"type": "webui"}', "sd_merge_models": '{"abc": {"name": "A"}}'}
    path = write_small(tmp_path / "m.safetensors", tensors, metadata=metadata)
    found = inspect(path)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert found["family"] == "sd1"
    assert found["kind"] == "checkpoint"
    assert found["prediction_type"] == "epsilon"
    assert found["parts"] == {"unet": True, "text_encoder": True, "vae": True, "ema": True}
    assert found["dtypes"] == {"unet": "fp16", "text_encoder": "fp16", "vae": "fp16", "ema": "fp32", "other": "fp32"}
    assert found["tensors"] == len(tensors)
    assert found["sha256"] == digest
    assert found["autov2"] == digest[:10]
    assert found["legacy_hash"] == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert found["metadata"] == {"format": "pt", "sd_merge_recipe": {"type": "webui"}, "sd_merge_models": {"abc": {"name": "A"}}}  # noqa: E501
    assert found["recipe"] == {"type": "webui"}
    assert found["lineage"] == {"abc": {"name": "A"}}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("name", "texts"), [(SD2, "cond_stage_model."), (SDXL, "conditioner.")])
def test_other_families_and_missing_parts(tmp_path, name, texts):
    kept = {key: value for key, value in small_tensors(name).items() if not key.startswith("first_stage_model.")}
    found = inspect(write_small(tmp_path / "m.safetensors", kept, name))
    assert found["family"] == name
    assert found["parts"] == {"unet": True, "text_encoder": True, "vae": False, "ema": False}
    textless = {key: value for key, value in kept.items() if not key.startswith(texts)}
    found = inspect(write_small(tmp_path / "n.safetensors", textless, name))
    assert found["family"] == name
    assert found["parts"]["text_encoder"] is False


def test_a_ckpt_says_what_was_left_out(tmp_path, tensors):
    found = inspect(write_small(tmp_path / "m.ckpt", tensors))
    assert found["family"] == "sd1"
    assert found["metadata"] == {}
    assert found["recipe"] is None
    assert any("global_step" in note for note in found["notes"])


def test_small_files_are_called_by_their_kind(tmp_path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, tmp_path / "lora.safetensors")
    found = inspect(tmp_path / "lora.safetensors")
    assert (found["kind"], found["family"]) == ("lora", None)
    data = (tmp_path / "lora.safetensors").read_bytes()
    assert found["addnet_hash"] == hashlib.sha256(data[-64:]).hexdigest()[:12]
    save_file({"encoder.conv_in.weight": torch.zeros(1, 3, 3, 3)}, tmp_path / "vae.safetensors")
    found = inspect(tmp_path / "vae.safetensors")
    assert found["kind"] == "vae"
    assert found["parts"] == {"unet": False, "text_encoder": False, "vae": True, "ema": False}


def test_an_odd_architecture_is_described_with_a_note(tmp_path):
    tensors = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}
    save_file(tensors, tmp_path / "odd.safetensors")
    found = inspect(tmp_path / "odd.safetensors")
    assert (found["kind"], found["family"]) == ("checkpoint", None)
    assert found["notes"]


def test_the_cache_spares_the_hashing(tmp_path):
    path = tmp_path / "vae.safetensors"
    save_file({"encoder.conv_in.weight": torch.zeros(1, 3, 3, 3)}, path)
    cache = HashCache(tmp_path / "hashes.json")
    assert inspect(path, cache)["sha256"] == cache.get(path)
    assert inspect(path, cache, lambda *_: pytest.fail("hashed again"))["sha256"] == cache.get(path)


def test_an_unreadable_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        inspect(tmp_path / "missing.safetensors")
