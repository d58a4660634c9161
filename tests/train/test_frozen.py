"""The frozen UNet under a LoRA or an embedding in 16 bits, and what is not needed away from the device."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.events import CancelToken, Finished, Preview, result_of
from lib_sdtrain.train import loop, starting, trainer
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.state import newest_state
from tests.train.runs import finish, of_kind, run_settings

KINDS = {
    "lora": {"method__kind": "lora", "train__learning_rate": 1e-2},
    "lora of convolutions, activations computed twice": {
        "method__kind": "lora", "method__conv_rank": 4, "train__learning_rate": 1e-2,
        "train__gradient_checkpointing": True,
    },
    "embedding": {"method__kind": "embedding", "embedding__name": "sks", "embedding__init_words": "dog"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_unet_teaches_the_same_bit_for_bit(tiny_checkpoint, picture_folder, tmp_path, monkeypatch, kind):
    states = []
    for name in ("narrow", "wide"):
        if name == "wide":
            monkeypatch.setattr(trainer, "narrow", lambda *_: None)
        settings = run_settings(
            tiny_checkpoint, tmp_path / "i" if states else picture_folder("i", 3), train__mixed_precision="bf16",
            **KINDS[kind],
        )
        run = tmp_path / name
        assert isinstance(finish(train(settings, run_dir=run, outputs=tmp_path / f"out-{name}"))[-1], Finished)
        states.append(load_file(newest_state(run / "state").path / "tensors.safetensors"))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_autocasts_cache_changes_nothing(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    folder, states = picture_folder("i", 3), []
    for name in ("without", "with"):
        if name == "with":
            monkeypatch.setattr(trainer, "autocast", torch.autocast)
        settings = run_settings(tiny_checkpoint, folder, train__mixed_precision="bf16", train__batch_size=2)
        run = tmp_path / name
        finish(train(settings, run_dir=run, outputs=tmp_path / f"out-{name}"))
        states.append((newest_state(run / "state").path / "tensors.safetensors").read_bytes())
    assert states[0] == states[1]


def test_only_what_is_multiplied_with_is_narrow(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    seen = {}
    real = trainer.narrow

    def narrow(module, device, half):
        real(module, device, half)
        seen.update({name: weight.dtype for name, weight in module.named_parameters()})

    monkeypatch.setattr(trainer, "narrow", narrow)
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__mixed_precision="bf16", method__kind="lora",
        preview__prompts=[{"prompt": "a dog", "steps": 2, "width": 64, "height": 64}], preview__every=2,
        save__dir=str(tmp_path / "out"),
    )
    assert of_kind(finish(train(settings, run_dir=tmp_path / "run")), Preview)   # it draws as it is
    norms = {name: dtype for name, dtype in seen.items() if "norm" in name}
    assert set(norms.values()) == {torch.float32}
    assert {dtype for name, dtype in seen.items() if name not in norms} == {torch.bfloat16}
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / "out" / "sks.safetensors").values())


def test_what_is_trained_whole_is_not_narrowed(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "narrow", lambda *_: pytest.fail("it was narrowed"))
    folder = picture_folder("i", 2)
    for own in ({"train__mixed_precision": "bf16"}, {"method__kind": "lora"}):
        run = tmp_path / next(iter(own))
        assert isinstance(finish(train(run_settings(tiny_checkpoint, folder, **own), run_dir=run))[-1], Finished)


def test_the_unet_is_away_while_pictures_are_encoded_and_captions(
    tiny_checkpoint, picture_folder, tmp_path, monkeypatch
):
    """On a GPU the VAE and the text encoders have the device to themselves."""
    open_now, seen = [], []

    class Away:
        def __init__(self, modules):
            self.names = sorted(type(module).__name__ for module in modules)

        def __enter__(self):
            open_now.append(self.names)

        def __exit__(self, *problem):
            open_now.remove(self.names)

    def watched(real, name):
        def work(*args, **kwargs):
            seen.append((name, list(open_now)))
            return real(*args, **kwargs)

        return work

    monkeypatch.setattr(loop, "off_device", Away)
    monkeypatch.setattr(loop, "prepare_words", watched(loop.prepare_words, "words"))
    monkeypatch.setattr(Latents, "prepare", watched(Latents.prepare, "pictures"))
    finish(train(run_settings(tiny_checkpoint, picture_folder("i", 2)), run_dir=tmp_path / "run"))
    unet, text = ["UNet2DConditionModel"], ["CLIPTextModel"]
    assert seen == [("pictures", [unet, text]), ("words", [unet])]
    assert not open_now


def test_a_frozen_unet_is_narrow_before_it_reaches_the_device(tiny_checkpoint, picture_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(starting, "load_model", lambda *args: asked.append(args[-1]))
    for own, wanted in (({"method__kind": "lora"}, "cpu"), ({}, None)):
        folder = picture_folder(f"i{len(asked)}", 2)
        settings = run_settings(tiny_checkpoint, folder, train__mixed_precision="fp16", **own)
        plan = result_of(make_plan(settings, folder.parent, "cuda", CancelToken()), lambda event: None)
        with pytest.raises(AttributeError):
            starting.load_for_training(plan)
        assert asked[-1] == wanted
