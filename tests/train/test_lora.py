"""LoRA: the model stays, a small file is learnt, and whoever puts it on the model gets what training had."""
from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.func import functional_call

from lib_sdtrain import train
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Finished, Saved, Stopped
from lib_sdtrain.merge.blocks import LAYOUTS
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.model.hashes import addnet_hash
from lib_sdtrain.model.lora import open_lora
from lib_sdtrain.sample.composition import Network
from lib_sdtrain.sample.networks import Networks
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.settings.run_method import MethodSettings
from lib_sdtrain.train.families import check_family
from lib_sdtrain.train.forecast import trained_weights
from lib_sdtrain.train.lora_choice import block_weights, chosen_layers
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.starting import resolve_run
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_step import double_batch, make_trainer

LORA = {"method__kind": "lora", "method__rank": 4, "method__alpha": 2.0, "train__learning_rate": 1e-2}


@pytest.fixture(params=["sd1", "sd2", "sdxl"])
def parent(request, tmp_path) -> Path:
    return write_tiny(tmp_path / f"{request.param}.safetensors", request.param)


@pytest.fixture
def folders(picture_folder):
    return picture_folder("i", 3), picture_folder("c", 3)


def file_of(seen) -> Path:
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"])


def outputs(model) -> list[torch.Tensor]:
    torch.manual_seed(5)
    ids = torch.randint(0, 1000, (1, 77))
    noisy = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        hidden = [encoder(ids, output_hidden_states=True).hidden_states[-2] for encoder in model.text_encoders]
        extra = {"text_embeds": hidden[-1][:, -1], "time_ids": torch.full((1, 6), 64.0)}
        said = model.unet(noisy, torch.tensor([300]), torch.cat(hidden, 2), added_cond_kwargs=extra)
        return [*hidden, said.sample]


def test_the_file_on_its_parent_is_the_model_that_was_trained(parent, folders, tmp_path):
    """SDXL's with all that a LoRA can have: second text encoder, convolutions of a rank of their own, block weights."""
    before = parent.read_bytes()
    more = {"method__train_text_encoder_2": True, "method__conv_rank": 2, "method__conv_alpha": 1.0,
            "method__block_weights": ",".join(["1"] * 10 + ["0.5"] * 10)} if parent.stem == "sdxl" else {}
    settings = run_settings(parent, *folders, **LORA, **more)
    trainer = make_trainer(settings, tmp_path)
    for part in trainer.model.parts.values():
        part.float()
    untrained = outputs(load_model(open_checkpoint(parent), "cpu", torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(outputs(trainer.model), untrained, strict=True))
    for _ in range(4):
        trainer.train_step()
    trained = outputs(trainer.model)

    file = file_of(finish(train(settings, run_dir=tmp_path / "run")))
    model = load_model(open_checkpoint(parent), "cpu", torch.float32)
    with Networks(model, [file.parent]) as networks:
        networks.apply([Network("lora", (file.stem, "1"), {})])
        for got, wanted, plain in zip(outputs(model), trained, untrained, strict=True):
            assert (wanted - plain).abs().max() > 0.05 * plain.std()
            assert (got - wanted).abs().max() < 0.01 * (wanted - plain).abs().max()
    assert parent.read_bytes() == before


def test_every_layer_of_the_file_is_one_that_is_known_and_the_webui_can_tell_what_it_is(parent, folders, tmp_path):
    seen = finish(train(run_settings(parent, *folders, **LORA), run_dir=tmp_path / "run"))
    file = file_of(seen)
    assert open_lora(file, open_checkpoint(parent).family).notes == ()
    assert [event.kind for event in of_kind(seen, Saved) if event.file == str(file)] == ["lora"]
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        keys = list(opened.keys())
        assert {str(opened.get_tensor(key).dtype) for key in keys} == {"torch.float16"}
        # kohya's names: diffusers' UNet for SD1 and SD2, SGM's for SDXL, which the WebUI reads in no other form
        text, middle = ("te1", "middle_block_1") if parent.stem == "sdxl" else ("te", "mid_block_attentions_0")
        assert opened.get_tensor(f"lora_{text}_text_model_encoder_layers_0_mlp_fc1.alpha") == 2.0
        assert opened.get_tensor(f"lora_unet_{middle}_proj_in.lora_down.weight").shape[0] == 4
    assert len(keys) % 3 == 0
    assert metadata["ss_base_model_version"].startswith("sdxl_") == (parent.stem == "sdxl")
    assert metadata["ss_v2"] == str(parent.stem == "sd2")
    assert metadata["sshs_model_hash"] == addnet_hash(file)
    assert str(tmp_path) not in str(metadata)


def test_gradients_are_those_of_the_changed_weights(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(tiny_checkpoint, *folders, **LORA, method__train_text_encoder=False)
    trainer = make_trainer(settings, tmp_path)
    layers = trainer.parts["unet"].double()
    for layer in layers.values():
        torch.nn.init.normal_(layer.lora_up.weight, std=0.1)
    plain = copy.deepcopy(load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32).unet).double()
    names = {"lora_unet_" + name.replace(".", "_"): name for name, _ in plain.named_modules()}
    changed = {
        f"{names[key]}.weight":
            plain.get_parameter(f"{names[key]}.weight")
            + 0.5 * torch.einsum("or...,ri...->oi...", layer.lora_up.weight, layer.lora_down.weight)
        for key, layer in layers.items()
    }  # fmt: skip
    noisy, steps = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.tensor([5, 700])
    hidden = torch.randn(2, 77, plain.config.cross_attention_dim, dtype=torch.float64)
    wanted = functional_call(plain, changed, (noisy, steps, hidden)).sample
    got = trainer.model.unet(noisy, steps, hidden).sample
    assert torch.allclose(got, wanted, atol=1e-10)
    weights = list(layers.parameters())
    for one, other in zip(
        torch.autograd.grad(got.square().sum(), weights), torch.autograd.grad(wanted.square().sum(), weights),
        strict=True,
    ):  # fmt: skip
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9)


def test_only_the_lora_is_trained_and_forecast(tiny_checkpoint, folders, tmp_path):
    trainer = make_trainer(run_settings(tiny_checkpoint, *folders, **LORA), tmp_path)
    count = sum(p.numel() for group in trainer.optimizer.param_groups for p in group["params"])
    assert count == trained_weights(trainer.plan)
    double_batch(trainer)
    assert not any(p.requires_grad for part in (trainer.model.unet, *trainer.model.text_encoders)
                   for p in part.parameters())  # fmt: skip


def test_a_stopped_lora_goes_on_bit_for_bit_and_its_rank_stays(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(tiny_checkpoint, *folders, **LORA)
    straight = file_of(finish(train(settings, run_dir=tmp_path / "straight"))).read_bytes()
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    with pytest.raises(UserError, match=r"method\.rank"):
        finish(resume(tmp_path / "cut", {"method.rank": 8}))
    assert file_of(finish(resume(tmp_path / "cut"))).read_bytes() == straight


def test_the_learning_rate_of_a_lora_has_its_own_default(tiny_checkpoint):
    for kind, rate in (("full", 1e-6), ("lora", 1e-4)):
        values = {"model.checkpoint": str(tiny_checkpoint), "method.kind": kind}
        assert resolve_run([Layer("test", values)], "cpu").settings.train.learning_rate == rate


def test_convolutions_are_chosen_as_kohya_chooses_them(tiny_checkpoint):
    family = open_checkpoint(tiny_checkpoint).family
    plain, conv = (chosen_layers(family, "unet", MethodSettings(rank=4, alpha=2.0, **more))
                   for more in ({}, {"conv_rank": 8, "conv_alpha": 3.0}))  # fmt: skip
    assert all(conv[name] == choice for name, choice in plain.items())
    added = {choice.name: (choice.rank, choice.alpha) for name, choice in conv.items() if name not in plain}
    assert added["lora_unet_down_blocks_0_resnets_0_conv1"] == (8, 3.0)
    assert added["lora_unet_up_blocks_0_upsamplers_0_conv"] == (8, 3.0)
    assert added["lora_unet_down_blocks_0_downsamplers_0_conv"] == (8, 3.0)
    assert added["lora_unet_mid_block_resnets_0_time_emb_proj"] == (4, 2.0)
    assert added["lora_unet_up_blocks_1_resnets_0_conv_shortcut"] == (4, 2.0)
    assert not any("conv_in" in name or "conv_out" in name or "time_embedding" in name for name in added)


def test_kohyas_number_of_modules_at_full_size():
    """What kohya's scripts report for SD1 and SDXL: UNet, text encoders, UNet with convolutions."""
    wanted = {"sd1": ((192, 72), 278), "sdxl": ((722, 72, 192), 788)}
    for name, (counts, with_convolutions) in wanted.items():
        for part, count in zip(("unet", "text_encoder", "text_encoder_2"), counts, strict=False):
            assert len(chosen_layers(PUBLISHED[name], part, MethodSettings())) == count, (name, part)
        assert len(chosen_layers(PUBLISHED[name], "unet", MethodSettings(conv_rank=4))) == with_convolutions


def test_blocks_are_those_of_the_merger(tiny_checkpoint):
    family = open_checkpoint(tiny_checkpoint).family
    numbers = ["0"] * 26
    numbers[0], numbers[5], numbers[13] = "0.5", "1", "2"  # BASE, IN04, M00
    method = MethodSettings(block_weights=", ".join(numbers))
    unet = chosen_layers(family, "unet", method)
    assert {name.split(".attentions")[0] for name in unet} == {"down_blocks.1", "mid_block"}
    rates = {name.split(".attentions")[0]: choice.rate for name, choice in unet.items()}
    assert rates == {"down_blocks.1": 1.0, "mid_block": 2.0}
    assert {choice.rate for choice in chosen_layers(family, "text_encoder", method).values()} == {0.5}
    numbers[0] = "0"
    assert chosen_layers(family, "text_encoder", MethodSettings(block_weights=",".join(numbers))) == {}
    none = ",".join(["0"] * 26)
    for wrong, said in (("1,2,3", "3 block weights"), (none, "one of them over 0"), ("nobody", "nobody")):
        with pytest.raises(UserError, match=said):
            block_weights(wrong, family)


@pytest.mark.parametrize(("given", "text", "conv_rank", "said"), [
    ({"BASE": "1"}, False, None, ["method.block_weights: these weights leave no layer to train"]),
    ({"IN00": "1", "OUT02": "1"}, True, None, ["method.block_weights: these weights leave no layer to train"]),
    ({"IN00": "1"}, False, 4, ["method.block_weights: these weights leave no layer to train"]),
    ({"OUT02": "1"}, False, 4, []),
    ({"M00": "1"}, True, None, ["method.train_text_encoder: method.block_weights leave no layer of it to train"]),
    ({"M00": "1"}, False, None, []),
    ({"BASE": "1"}, True, None, ["method.train_unet: method.block_weights leave no layer of it to train"]),
    ({"BASE": "1", "M00": "1"}, True, None, []),
])
def test_a_part_of_which_no_layer_is_left_is_refused(tiny_checkpoint, folders, tmp_path, given, text, conv_rank, said):
    numbers = ",".join(given.get(name, "0") for name in LAYOUTS["sd1"].names)
    settings = run_settings(
        tiny_checkpoint, *folders, **{**LORA, "method__block_weights": numbers, "method__train_text_encoder": text,
                                      "method__conv_rank": conv_rank, "train__length": 1})
    problems = Problems()
    check_family(open_checkpoint(tiny_checkpoint).family, settings, problems)
    assert [f"{problem.where}: {problem.what}" for problem in problems.found] == said
    assert all(problem.fix for problem in problems.found)
    if not said:
        assert isinstance(finish(train(settings, run_dir=tmp_path / "run"))[-1], Finished)


def test_block_weights_multiply_the_learning_rate(tiny_checkpoint, folders, tmp_path):
    numbers = ",".join(["0.5"] + ["1"] * 12 + ["0.1"] + ["0"] * 12)
    settings = run_settings(tiny_checkpoint, *folders, **LORA, method__block_weights=numbers)
    trainer = make_trainer(settings, tmp_path)
    rates = {(group["name"], round(group["base_lr"], 6)) for group in trainer.optimizer.param_groups}
    assert rates == {("unet", 0.01), ("unet", 0.001), ("text_encoder", 0.005)}
    assert not any(name.startswith("lora_unet_up_blocks") for name in trainer.parts["unet"])
