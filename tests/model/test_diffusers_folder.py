"""diffusers folders, as diffusers and transformers themselves write them, read as checkpoints."""
import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.build import load_model, text_config, unet_config, vae_config
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import SD1, SD2, SDXL, V_PREDICTION
from lib_sdtrain.model.ldm_config import apply_config
from tests.model.layouts import small_family
from tests.model.small import write_small


def folder_family(name):
    """SD2's folders end the text encoder at the layer that is used."""
    family = small_family(name)
    if name == SD2:
        family = replace(family, text=(replace(family.text[0], layers=3, hidden_index=-1),))
    return family


def write_folder(path, family, **scheduler):
    torch.manual_seed(0)
    modules = {
        "unet": UNet2DConditionModel(**unet_config(family.unet, family.resolution // family.vae.downscale)),
        "vae": AutoencoderKL(**vae_config(family.vae, family.scale_factor)),
    }
    for part, config in zip(("text_encoder", "text_encoder_2"), family.text, strict=False):
        kind = CLIPTextModelWithProjection if config.projection else CLIPTextModel
        modules[part] = kind(CLIPTextConfig(**text_config(config)))
    for part, module in modules.items():
        module.save_pretrained(path / part)
    DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **scheduler,
    ).save_pretrained(path / "scheduler")
    return modules


@pytest.mark.parametrize("name", [SD1, SD2, SDXL])
def test_a_folder_reads_as_the_family_and_the_weights_it_was_written_from(tmp_path, name):
    family = replace(folder_family(name), scale_factor=0.25)
    modules = write_folder(tmp_path, family)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.family == family
    assert checkpoint.parts == {"unet": True, "text_encoder": True, "vae": True, "ema": False}
    model = load_model(checkpoint, "cpu", torch.float32)
    for part, module in model.parts.items():
        written = dict(modules[part].named_parameters())
        assert set(written) == {key for key, _ in module.named_parameters()}
        assert all(torch.equal(value, written[key]) for key, value in module.named_parameters())


@pytest.mark.parametrize("name", [SD1, SD2, SDXL])
def test_its_tensors_have_a_single_files_keys_shapes_and_bytes(tmp_path, name):
    family = folder_family(name)
    write_folder(tmp_path / "folder", family)
    checkpoint = open_checkpoint(tmp_path / "folder")
    tensors = {key: checkpoint.tensor(key) for key in checkpoint.keys()}  # noqa: SIM118 - not a dict
    for key, tensor in tensors.items():
        assert tensor.shape == checkpoint.shape(key) == checkpoint.tensors.shape(key)
        assert tensor.dtype == checkpoint.tensors.dtype(key)
        assert bytes(checkpoint.tensors.raw(key)) == tensor.contiguous().numpy().tobytes()
        assert checkpoint.tensors.nbytes(key) == tensor.nbytes
    single = open_checkpoint(write_small(tmp_path / "m.safetensors", family, tensors))
    assert single.parts["text_encoder"]
    assert {key: single.shape(key) for key in tensors} == checkpoint.tensors.shapes()


def test_v_prediction_and_zero_terminal_snr_stand_in_the_scheduler(tmp_path):
    write_folder(tmp_path, folder_family(SD1), prediction_type="v_prediction", rescale_betas_zero_snr=True)
    family = open_checkpoint(tmp_path).family
    assert family.prediction_type == V_PREDICTION
    assert family.schedule.zero_terminal_snr


def test_a_child_of_a_scaled_down_folder_gets_a_description(tmp_path):
    family = folder_family(SD1)
    write_folder(tmp_path, family)
    checkpoint = open_checkpoint(tmp_path)
    (tmp_path / "child.yaml").write_text(checkpoint.config_text)
    assert apply_config(checkpoint.family, tmp_path / "child.yaml") == family


def test_attention_names_of_earlier_versions_are_known(tmp_path):
    from safetensors.torch import load_file, save_file

    write_folder(tmp_path, folder_family(SD1))
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(file)
    for new, old in names.items():
        tensors = {key.replace(new, old) if "attentions" in key else key: tensor for key, tensor in tensors.items()}
    before = open_checkpoint(tmp_path).tensor("first_stage_model.decoder.mid.attn_1.q.weight").clone()
    save_file(tensors, file)
    assert torch.equal(open_checkpoint(tmp_path).tensor("first_stage_model.decoder.mid.attn_1.q.weight"), before)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(("part", "changes", "words"), [
    ("unet", {"down_block_types": ["AttnDownBlock2D"] * 3}, "its blocks are of no known form"),
    ("unet", {"class_embed_type": "projection"}, "conditioned on classes"),
    ("unet", {"layers_per_block": [1, 1, 1]}, "does not fit its config.json"),
    ("unet", {"layers_per_block": [2, 2, 2]}, "is missing"),
    ("vae", {"use_quant_conv": False}, "no known form"),
])
def test_what_is_not_stable_diffusion_is_refused(tmp_path, part, changes, words):
    write_folder(tmp_path, folder_family(SD1))
    rewrite(tmp_path / part / "config.json", **changes)
    with pytest.raises(UserError, match=words):
        open_checkpoint(tmp_path)


def test_other_noise_schedules_are_refused(tmp_path):
    write_folder(tmp_path, folder_family(SD1))
    rewrite(tmp_path / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(UserError, match="prediction_type sample"):
        open_checkpoint(tmp_path)


def test_a_missing_configuration_is_named(tmp_path):
    write_folder(tmp_path, folder_family(SD1))
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match=r"unet/config\.json"):
        open_checkpoint(tmp_path)
