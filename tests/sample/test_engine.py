"""The `sample` command: files, events, names, mistakes."""
from __future__ import annotations

import gc
import json
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import Cancelled, UserError
from lib_sdtrain.events import CancelToken, Finished, Phase, Saved, Started
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.hashes import autov2, sha256
from lib_sdtrain.sample import models, sample
from lib_sdtrain.sample.composition import networks
from lib_sdtrain.sample.images import read_infotext
from lib_sdtrain.sample.infotext import parse_infotext
from lib_sdtrain.sample.networks import Networks
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest, SampleSettings
from tests.tiny import write_tiny

SMALL = SampleRequest(prompt="a dog", width=64, height=64, steps=2, seed=5)


def settings(checkpoint, out, *requests, **fields):
    return SampleSettings(checkpoint=str(checkpoint), out=str(out), requests=requests or (SMALL,), **fields)


def lora(checkpoint, path, size=0.5, metadata=None):
    """A LoRA that changes one matrix of the UNet and one of the text encoder."""
    shapes = open_checkpoint(checkpoint).tensors.shapes()
    generator = torch.Generator().manual_seed(3)
    layers = {
        "lora_unet_mid_block_attentions_0_proj_in": "model.diffusion_model.middle_block.1.proj_in.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1":
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    }
    tensors = {}
    for name, key in layers.items():
        rows, columns = shapes[key][:2]
        tail = (1,) * (len(shapes[key]) - 2)
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, columns, *tail, generator=generator) * size
        tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 2, *tail, generator=generator) * size
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path, metadata=metadata)
    return path


def test_pictures_are_numbered_and_described(tiny_checkpoint, tmp_path):
    two = SampleRequest(prompt="a cat", width=64, height=72, steps=2, seed=7, batch_size=2)
    events = list(sample(settings(tiny_checkpoint, tmp_path / "out", SMALL, two, save_latents=True)))
    assert isinstance(events[0], Started)
    assert events[0].total == 3
    assert [event.file for event in events if isinstance(event, Saved)] == [
        str(tmp_path / "out" / f"000{number}.png") for number in range(3)
    ]
    assert any(isinstance(event, Phase) and event.done == 2 for event in events)
    assert isinstance(events[-1], Finished)
    images = events[-1].result["images"]
    assert [image["seed"] for image in images] == [5, 7, 8]
    for image in images:
        assert read_infotext(image["file"]) == image["infotext"]
        assert Image.open(image["file"]).size in {(64, 64), (64, 72)}
    assert np.load(tmp_path / "out" / "0001.npy").shape == (4, 9, 8)


def test_the_infotext_names_the_model_and_gives_the_picture_again(tiny_checkpoint, tmp_path):
    first = list(sample(settings(tiny_checkpoint, tmp_path / "a")))[-1].result["images"][0]
    request, facts = parse_infotext(first["infotext"])
    assert facts.model_hash == autov2(sha256(tiny_checkpoint))
    assert facts.model == tiny_checkpoint.stem
    again = list(sample(settings(tiny_checkpoint, tmp_path / "b", request)))[-1].result["images"][0]
    assert (tmp_path / "a" / "0000.png").read_bytes() == (tmp_path / "b" / "0000.png").read_bytes()
    assert again["infotext"] == first["infotext"]


def test_mistakes_are_told_before_anything_is_written(tiny_checkpoint, tmp_path):
    wrong = SampleRequest(prompt="<lora:nope:1>", sampler_name="Foo", options=SampleOptions(sd_vae="missing"))
    with pytest.raises(UserError) as caught:
        list(sample(settings(tiny_checkpoint, tmp_path / "out", SMALL, wrong)))
    assert "request 2: sd_vae" in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError) as caught:
        list(sample(SampleSettings(checkpoint=str(tmp_path / "no.safetensors"))))
    assert {problem.where for problem in caught.value.problems} == {"out", "requests", "checkpoint"}


def test_a_lora_changes_the_picture_by_its_weight_and_is_named(tiny_checkpoint, tmp_path):
    lora(tiny_checkpoint, tmp_path / "mine.safetensors", metadata={"ss_output_name": "other"})

    def draw(prompt):
        request = SampleRequest(prompt=prompt, width=64, height=64, steps=2, seed=5)
        done = list(sample(settings(tiny_checkpoint, tmp_path / "out", request, lora_dir=str(tmp_path),
                                    save_latents=True)))[-1].result["images"][0]
        return np.load(tmp_path / "out" / "0000.npy"), done["infotext"]

    plain, _ = draw("a dog")
    full, infotext = draw("a dog<lora:mine:1>")
    assert not np.allclose(plain, full, atol=1e-3)
    assert 'Lora hashes: "mine: ' in infotext
    assert "<lora:mine:1>" in infotext
    assert np.array_equal(draw("a dog<lora:mine:0>")[0], plain)
    assert np.array_equal(draw("a dog<lora:other:1>")[0], full)
    assert not np.allclose(draw("a dog<lora:mine:0:1>")[0], draw("a dog<lora:mine:1:0>")[0], atol=1e-3)
    assert np.array_equal(draw("a dog")[0], plain)


def test_networks_come_off_bit_for_bit(tiny_checkpoint, tmp_path):
    lora(tiny_checkpoint, tmp_path / "mine.safetensors")
    model = load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    changed = "mid_block.attentions.0.proj_in.weight"
    with Networks(model, [tmp_path]) as on:
        on.apply(networks("<lora:mine:0.3>")[1])
        assert not torch.equal(model.unet.state_dict()[changed], before[changed])
        on.apply(networks("<lora:mine:1:0>")[1])
        assert torch.equal(model.unet.state_dict()[changed], before[changed])
        on.apply(networks("<lora:mine:0.7>")[1])
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())


def test_a_vae_file_is_used_and_named(tiny_checkpoint, tmp_path):
    checkpoint = open_checkpoint(tiny_checkpoint)
    prefix = "first_stage_model."
    tensors = {key.removeprefix(prefix): checkpoint.tensor(key).float() for key in checkpoint.file_keys
               if key.startswith(prefix)}
    tensors["decoder.conv_out.bias"] = tensors["decoder.conv_out.bias"] + 0.5
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "bright.safetensors")

    def mean(**fields):
        done = list(sample(settings(tiny_checkpoint, tmp_path / "out", **fields)))[-1].result["images"][0]
        return np.asarray(Image.open(done["file"]), dtype=float).mean(), done["infotext"]

    plain, _ = mean()
    bright, infotext = mean(vae=str(tmp_path / "bright.safetensors"))
    assert bright > plain + 20
    assert "VAE: bright.safetensors" in infotext


def test_a_vae_with_diffusers_names_is_used(tiny_checkpoint, tmp_path):
    vae = load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32).vae
    save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, tmp_path / "vae.safetensors")
    list(sample(settings(tiny_checkpoint, tmp_path / "a")))
    list(sample(settings(tiny_checkpoint, tmp_path / "b", vae=str(tmp_path / "vae.safetensors"))))
    one, other = (np.asarray(Image.open(tmp_path / x / "0000.png"), dtype=float) for x in "ab")
    assert np.abs(one - other).max() <= 1


def test_what_is_no_vae_is_said_before_anything_is_loaded(tiny_checkpoint, tmp_path):
    path = lora(tiny_checkpoint, tmp_path / "mine.safetensors")
    with pytest.raises(UserError, match="this is a LoRA, not a VAE"):
        list(sample(settings(tiny_checkpoint, tmp_path / "out", vae=str(path))))
    assert not (tmp_path / "out").exists()


def test_the_model_before_is_gone_when_the_next_is_loaded(tmp_path, monkeypatch):
    first, other = (write_tiny(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (1, 2))
    asks = replace(SMALL, options=SampleOptions(sd_model_checkpoint=other.name))
    loaded, alive = [], []

    def load(*args, **kwargs):
        gc.collect()
        alive.append(sum(unet() is not None for unet in loaded))
        model = load_model(*args, **kwargs)
        loaded.append(weakref.ref(model.unet))
        return model

    monkeypatch.setattr(models, "load_model", load)
    list(sample(settings(first, tmp_path / "out", SMALL, asks)))
    assert alive == [0, 0]


def test_weights_that_several_loras_change_are_kept_once(tiny_checkpoint, tmp_path):
    class Copies(TorchDispatchMode):
        """Counts the copies that are made of one tensor."""

        def __init__(self, of):
            super().__init__()
            self.place, self.count = of.data_ptr(), 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            copies = function in (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default)
            self.count += copies and args[0].data_ptr() == self.place
            return function(*args, **(kwargs or {}))

    for name in ("one", "two", "three"):
        lora(tiny_checkpoint, tmp_path / f"{name}.safetensors")
    model = load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32)
    weight = model.unet.get_parameter("mid_block.attentions.0.proj_in.weight").data
    with Networks(model, [tmp_path]) as on, Copies(weight) as copies:
        on.apply(networks("<lora:one:1><lora:two:1><lora:three:1>")[1])
    assert copies.count == 1


def test_stopping_leaves_only_whole_pictures(tiny_checkpoint, tmp_path):
    many = SampleRequest(prompt="a", width=64, height=64, steps=3, seed=1, n_iter=50)
    token = CancelToken()

    def stop_after_the_first():
        for event in sample(settings(tiny_checkpoint, tmp_path / "out", many), token):
            if isinstance(event, Saved):
                token.stop_and_save()

    with pytest.raises(Cancelled):
        stop_after_the_first()
    files = sorted((tmp_path / "out").iterdir())
    assert 1 <= len(files) <= 3
    for file in files:
        Image.open(file).load()


def test_closing_the_events_early_ends_the_work(tiny_checkpoint, tmp_path):
    many = SampleRequest(prompt="a", width=64, height=64, steps=3, seed=1, n_iter=50)
    events = sample(settings(tiny_checkpoint, tmp_path / "out", many))
    for event in events:
        if isinstance(event, Saved):
            break
    events.close()
    assert not any(thread.name == "sampling" for thread in threading.enumerate())


def test_the_command_prints_its_document(tiny_checkpoint, tmp_path, capsys):
    code = main(["sample", "--checkpoint", str(tiny_checkpoint), "--out", str(tmp_path / "out"), "--prompt", "a dog",
                 "--negative-prompt", "bad", "--steps", "2", "--sampler", "DPM++ 2M Karras", "--size", "64x72",
                 "--seed", "3", "--clip-skip", "2", "--ensd", "31337", "--hr-scale", "1.5", "--batch-size", "2",
                 "--cfg-scale", "5", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [image["seed"] for image in document["images"]] == [3, 4]
    assert document["seconds"] > 0
    request, _ = parse_infotext(document["images"][0]["infotext"])
    assert (request.sampler_name, request.scheduler, request.clip_skip, request.cfg_scale) == (
        "DPM++ 2M", "Karras", 2, 5.0)
    assert (request.width, request.height, request.enable_hr, request.hr_scale) == (64, 72, True, 1.5)


def test_the_command_reads_requests_and_infotexts(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "r.json").write_text('{"prompt": "a", "steps": 1, "width": 64, "height": 64, "seed": 4}')
    common = ["sample", "--checkpoint", str(tiny_checkpoint), "--out", str(tmp_path / "out"), "--json"]
    assert main([*common, "--request", str(tmp_path / "r.json")]) == 0
    infotext = json.loads(capsys.readouterr().out)["images"][0]["infotext"]
    (tmp_path / "i.txt").write_text(f"{infotext}\n=====\n{infotext}\n")
    assert main([*common, "--infotext", str(tmp_path / "i.txt")]) == 0
    assert [image["infotext"] for image in json.loads(capsys.readouterr().out)["images"]] == [infotext] * 2


def test_wrong_input_is_exit_code_2_with_a_line_each(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "r.json").write_text('{"prompt": "a", "stepz": 1, "cfgscale": 2}')
    assert main(["sample", "--checkpoint", str(tiny_checkpoint), "--request", str(tmp_path / "r.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
