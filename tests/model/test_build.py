"""Modules from checkpoints: the same output as diffusers' own single-file loader, and back to the same bytes."""
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.build import (
    build_part,
    build_unet,
    build_vae,
    empty_module,
    load_model,
    probe_prediction,
    settled,
    text_config,
    to_file_tensors,
)
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import EPSILON, PUBLISHED, SD1, SD2, SDXL, V_PREDICTION
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, part_rows
from lib_sdtrain.model.ldm_yaml import describe
from tests.model.layouts import small_family
from tests.model.small import random_tensors, write_small

FAMILIES = [SD1, SD2, SDXL]


def loadable(name):
    """A family whose description diffusers' loader understands: it knows one number of blocks for all levels, and
    takes a UNet for SDXL's by the published width of its text."""
    family = small_family(name)
    unet = replace(family.unet, num_res_blocks=(1,) * len(family.unet.channel_mult))
    if name == SD1:
        unet = replace(unet, transformer_depth=(1, 1, 0))
    if name == SDXL:
        text = (replace(family.text[0], width=768), replace(family.text[1], width=1280, projection=1280))
        unet = replace(unet, context_dim=2048, adm_in_channels=2816)
        family = replace(family, text=text)
    return replace(family, unet=unet)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    family = loadable(request.param)
    return open_checkpoint(write_small(tmp_path_factory.mktemp(request.param) / "small.safetensors", family))


def unet_inputs(family):
    generator = torch.Generator().manual_seed(1)
    unet = family.unet
    inputs = {
        "sample": torch.randn(2, unet.in_channels, 16, 16, generator=generator), "timestep": torch.tensor([999, 3]),
        "encoder_hidden_states": torch.randn(2, 77, unet.context_dim, generator=generator),
    }
    if unet.adm_in_channels:
        pooled = torch.randn(2, unet.adm_in_channels - 6 * 256, generator=generator)
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.tensor([[64, 64, 0, 8, 64, 64.0]] * 2)}
    return inputs


@torch.no_grad()
def test_the_unet_answers_as_diffusers_single_file_loader_makes_it(checkpoint):
    from diffusers import UNet2DConditionModel

    tensors = {key: checkpoint.tensor(key).clone() for key in checkpoint.keys()}  # noqa: SIM118 - not a dict
    config = yaml.safe_load(describe(checkpoint.family))
    theirs = UNet2DConditionModel.from_single_file(tensors, original_config=config, local_files_only=True)
    ours = build_unet(checkpoint, "cpu", torch.float32)
    inputs = unet_inputs(checkpoint.family)
    answer = ours(**inputs).sample
    assert torch.isfinite(answer).all()
    assert torch.equal(answer, theirs(**inputs).sample)


@torch.no_grad()
def test_the_vae_answers_as_diffusers_single_file_loader_makes_it(checkpoint):
    from diffusers import AutoencoderKL

    tensors = {key: checkpoint.tensor(key).clone() for key in checkpoint.keys()}  # noqa: SIM118 - not a dict
    config = yaml.safe_load(describe(checkpoint.family))
    theirs = AutoencoderKL.from_single_file(tensors, original_config=config, local_files_only=True)
    ours = build_vae(checkpoint, "cpu", torch.float32)
    picture = torch.rand(1, 3, 32, 24, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latent = ours.encode(picture).latent_dist
    assert torch.equal(latent.mean, theirs.encode(picture).latent_dist.mean)
    assert torch.equal(latent.std, theirs.encode(picture).latent_dist.std)
    assert torch.equal(ours.decode(latent.mean).sample, theirs.decode(latent.mean).sample)
    assert ours.config.scaling_factor == checkpoint.family.scale_factor


@torch.no_grad()
def test_the_text_encoders_answer_as_diffusers_single_file_loader_makes_them(checkpoint, tmp_path):
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from transformers import CLIPTextConfig

    ids = torch.randint(0, 1000, (2, 77), generator=torch.Generator().manual_seed(3))
    for part, config in zip(TEXT_ENCODERS, checkpoint.family.text, strict=False):
        ours = build_part(part, checkpoint, "cpu", torch.float32)
        CLIPTextConfig(**text_config(config)).save_pretrained(tmp_path / part)
        tensors = {key: checkpoint.tensor(key).clone() for key in checkpoint.keys()}  # noqa: SIM118 - not a dict
        theirs = create_diffusers_clip_model_from_ldm(
            type(ours), tensors, subfolder=part, config=str(tmp_path), local_files_only=True,
        )
        assert torch.equal(
            ours(ids, output_hidden_states=True).hidden_states[-2],
            theirs(ids, output_hidden_states=True).hidden_states[-2],
        )
        if config.projection:
            assert torch.equal(ours(ids).text_embeds, theirs(ids).text_embeds)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_loaded_model_goes_back_to_the_same_tensors(tmp_path, name, dtype):
    family = small_family(name)
    checkpoint = open_checkpoint(write_small(tmp_path / "m.safetensors", family, random_tensors(family, dtype=dtype)))
    assert checkpoint.family == family
    model = load_model(checkpoint, "cpu", torch.float32)
    back = {}
    for part, module in model.parts.items():
        back |= to_file_tensors(part, module, checkpoint)
    assert set(back) == {row.key for rows in part_rows(family).values() for row in rows}
    for key, tensor in back.items():
        assert tensor.shape == checkpoint.shape(key)
        assert torch.equal(tensor.to(dtype), checkpoint.tensor(key))


def test_loading_copies_so_that_training_never_writes_into_the_file(tmp_path):
    family = small_family(SD1)
    path = write_small(tmp_path / "m.safetensors", family)
    before = path.read_bytes()
    checkpoint = open_checkpoint(path)
    model = load_model(checkpoint, "cpu", torch.float32)
    with torch.no_grad():
        for module in model.parts.values():
            for parameter in module.parameters():
                parameter.zero_()
    assert checkpoint.tensor("model.diffusion_model.out.2.weight").abs().sum() > 0
    assert path.read_bytes() == before


def test_models_are_frozen_and_in_evaluation_mode(tmp_path):
    checkpoint = open_checkpoint(write_small(tmp_path / "m.safetensors", small_family(SDXL)))
    model = load_model(checkpoint, "cpu", torch.bfloat16)
    assert list(model.parts) == [UNET, VAE, *TEXT_ENCODERS]
    assert len(model.tokenizers) == 2
    for module in model.parts.values():
        assert not module.training
        assert not any(p.requires_grad or p.is_meta or p.dtype != torch.bfloat16 for p in module.parameters())


def drop(tensors, prefix):
    for key in [key for key in tensors if key.startswith(prefix)]:
        del tensors[key]


def edited(tmp_path, change, name=SD1):
    family = small_family(name)
    tensors = random_tensors(family)
    change(tensors)
    return open_checkpoint(write_small(tmp_path / "m.safetensors", family, tensors))


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.pop("model.diffusion_model.output_blocks.0.0.in_layers.2.bias"), "output_blocks.0.0.in_layers.2.bias"),
    (lambda t: t.update({"model.diffusion_model.controller.weight": torch.zeros(2)}), "has the tensor .*controller"),
    (lambda t: t.update({"first_stage_model.encoder.down.0.attn.0.q.weight": torch.zeros(2)}), "has the tensor .*attn"),
    (lambda t: drop(t, "first_stage_model."), "no VAE; name one with model.vae"),
    (lambda t: drop(t, "cond_stage_model."), "no text encoder"),
    (lambda t: t.update({"model.diffusion_model.out.0.weight": torch.zeros(5)}), "out.0.weight.*does not fit"),
])
def test_what_does_not_make_a_whole_model_is_named(tmp_path, change, words):
    checkpoint = edited(tmp_path, change)
    with pytest.raises(UserError, match=words) as caught:
        load_model(checkpoint, "cpu", torch.float32)
    assert caught.value.problems[0].where == str(checkpoint.path)


def test_text_encoders_of_another_width_are_refused(tmp_path):
    family = small_family(SD1)
    wide = replace(family, text=(replace(family.text[0], width=128),))
    checkpoint = open_checkpoint(write_small(tmp_path / "m.safetensors", family, random_tensors(wide)))
    with pytest.raises(UserError, match="reads text of width 64, its text encoders write 128"):
        load_model(checkpoint, "cpu", torch.float32)


def test_a_scaled_down_unet_without_description_says_what_to_do(tmp_path):
    checkpoint = open_checkpoint(write_small(tmp_path / "m.safetensors", small_family(SD1), config=False))
    assert checkpoint.family.unet.heads is None
    with pytest.raises(UserError, match=r"number of attention heads; put the model's LDM \.yaml beside it"):
        load_model(checkpoint, "cpu", torch.float32)


def test_the_vae_can_come_from_a_file_of_its_own(tmp_path):
    from lib_sdtrain.model.vae_file import open_vae

    family = small_family(SD1)
    other = {key.removeprefix("first_stage_model."): tensor
             for key, tensor in random_tensors(family, seed=5).items() if key.startswith("first_stage_model.")}
    vae = open_vae(write_small(tmp_path / "v.safetensors", family, other, config=False), family.vae)
    checkpoint = edited(tmp_path, lambda t: drop(t, "first_stage_model."))
    model = load_model(checkpoint, "cpu", torch.float32, vae)
    assert torch.equal(model.vae.decoder.conv_in.weight, other["decoder.conv_in.weight"])


def test_a_vae_of_another_size_is_refused_by_its_file(tmp_path):
    from lib_sdtrain.model.vae_file import open_vae

    family = small_family(SD1)
    wide = replace(family, vae=replace(family.vae, ch=family.vae.ch * 2))
    file = write_small(tmp_path / "v.safetensors", wide, config=False)
    with pytest.raises(UserError, match=f"than the model's: ch {wide.vae.ch} in place of {family.vae.ch}") as raised:
        open_vae(file, family.vae)
    assert raised.value.problems[0].where == str(file)
    assert open_vae(file, family.vae, exact=False).shape("first_stage_model.encoder.conv_in.weight")[0] == wide.vae.ch


class Answering(torch.nn.Module):
    """A UNet that answers its input plus a constant."""

    config = SimpleNamespace(in_channels=4, cross_attention_dim=8)

    def __init__(self, offset):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.tensor(offset))

    def forward(self, x, step, encoder_hidden_states, return_dict):
        assert (step.item(), return_dict, encoder_hidden_states.shape) == (999, False, (1, 2, 8))
        return (x + self.offset,)


@pytest.mark.parametrize(("offset", "kind"), [(0.0, EPSILON), (-0.9, EPSILON), (-1.1, V_PREDICTION)])
def test_sd2_is_asked_what_it_predicts_as_the_webui_asks(offset, kind):
    assert probe_prediction(Answering(offset)) == kind


def test_a_guessed_prediction_type_is_settled_by_the_weights(tmp_path):
    family = small_family(SD2)
    tensors = random_tensors(family)
    tensors["model.diffusion_model.out.2.weight"].zero_()
    tensors["model.diffusion_model.out.2.bias"].fill_(-3.0)
    checkpoint = open_checkpoint(write_small(tmp_path / "m.safetensors", family, tensors))
    assert settled(checkpoint) is checkpoint  # its description says epsilon
    guessed = replace(checkpoint, family=replace(checkpoint.family, prediction_guessed=True))
    model = load_model(guessed, "cpu", torch.float32)
    assert (model.family.prediction_type, model.family.prediction_guessed) == (V_PREDICTION, False)
    assert settled(guessed).family == model.family


def test_the_middles_depth_is_kept_where_the_last_level_has_no_attention():
    unet = replace(small_family(SD1).unet, middle_depth=3)
    module = empty_module(replace(PUBLISHED[SD1], unet=unet), UNET)
    assert len(module.mid_block.attentions[0].transformer_blocks) == 3
    with pytest.raises(UserError, match="middle"):
        empty_module(replace(PUBLISHED[SD1], unet=replace(unet, transformer_depth=(1, 1, 1))), UNET)
