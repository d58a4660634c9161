"""How much memory a run takes, told before it starts."""
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.merge.bench.measure import run_process
from lib_sdtrain.model.build import empty_module
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.model.keys import UNET, VAE
from lib_sdtrain.settings.layers import resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA, MethodSettings
from lib_sdtrain.train import convolutions
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.forecast import forecast, forecast_text
from lib_sdtrain.train.memory import need as need_module
from lib_sdtrain.train.memory import plays, table, tiles
from lib_sdtrain.train.memory.ahead import (
    held_from_the_start,
    used_before_training,
    zeroed_ahead,
    zeroed_from_the_start,
)
from lib_sdtrain.train.memory.counting import Moment, peak, worst_moments
from lib_sdtrain.train.memory.need import PROGRAM, memory_text, need
from lib_sdtrain.train.memory.plays import Step, step_moments
from lib_sdtrain.train.memory.tiles import kernel_bytes
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.winograd import KERNEL_BYTES, TILES_AT_ONCE
from tests.hollow import write_hollow
from tests.train.runs import run_settings

FAMILY = open_checkpoint("toybox").family


def test_what_is_held_at_each_moment_is_counted_and_told_for_every_size():
    def play(batch, side):
        first = torch.empty(batch, side * side, device="meta")    # 4 bytes a sample and pixel
        second = first + 1                                        # and 4 more
        third = torch.empty(batch, 10, device="meta")             # 40 a sample: 8 bp + 40 b
        del first
        fourth = torch.empty(1000, device="meta")                 # 4 bp + 40 b + 4000
        del second, third, fourth

    assert worst_moments(play, []) == [Moment(0, 40, 8), Moment(4000, 40, 4)]
    assert peak(worst_moments(play, []), batch=2, pixels=100) == 4000 + 80 + 800
    assert peak(worst_moments(play, []), batch=2, pixels=5000) == 80 + 80_000


def test_views_take_nothing_and_known_tensors_are_not_counted():
    weight = torch.empty(1000, device="meta")

    def play(batch, side):
        made = torch.empty(batch, side * side, device="meta")
        held = [made.view(-1), made.T, weight.view(10, 100), weight.add_(1)]
        del held

    assert worst_moments(play, [weight]) == [Moment(0, 0, 4)]


def test_a_layers_forward_and_backward_by_hand():
    layer = nn.Linear(6, 5, bias=False, device="meta")

    def play(batch, side):
        value = torch.empty(batch * side * side, 6, device="meta")            # 24 a pixel, held to the end
        layer(value).sum().backward()
        layer.weight.grad = None

    # at its sum (4) the answer (20 a pixel) is there still; the gradient of 5 x 6 is smaller than what was let go
    assert worst_moments(play, [layer.weight]) == [Moment(4, 0, 44)]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_played_without_numbers_or_with_them_it_is_the_same(monkeypatch, half, checkpointing):
    found = []
    for device in ("cpu", "meta"):
        monkeypatch.setattr(plays, "_device", lambda family, device=device: device)
        found.append(step_moments(FAMILY, Step(MethodSettings(), checkpointing, half)))
    assert found[0] == found[1]


def takes(batch=4, side=64, **changes):
    method = MethodSettings(**{name: changes.pop(name) for name in list(changes) if hasattr(MethodSettings(), name)})
    return table.step_peak(FAMILY, Step(method, **changes), batch, side**2)


def test_what_saves_memory_saves_memory():
    plain = takes()
    assert takes(half=True) < 0.8 * plain
    assert takes(checkpointing=True) < 0.4 * plain
    assert takes(kind=EMBEDDING) < plain
    assert takes(train_text_encoder=False) < plain
    assert takes(kind=LORA) > takes(kind=LORA, train_text_encoder=False) + 5 * 2**20   # its activations are kept too
    weights = open_checkpoint("toybox").parameter_counts()
    gradients = 4 * (weights["unet"] + weights["text_encoder"])
    assert takes(batch=1, side=8) >= gradients > takes(batch=1, side=8, in_backward=True)


@pytest.mark.parametrize("conv", [None, 12])
def test_a_loras_memory_grows_evenly_with_its_ranks(conv):
    method = MethodSettings(LORA, rank=40, conv_rank=conv)
    played = peak(step_moments(FAMILY, Step(method)), 2, 32**2)
    assert table.step_peak(FAMILY, Step(method), 2, 32**2) == pytest.approx(played, rel=0.01)


@pytest.mark.parametrize(("name", "step"), [
    ("toybox", Step(MethodSettings(FULL), half=True, checkpointing=True)),
    ("sd1", Step(MethodSettings(FULL, train_text_encoder=False), in_backward=True)),
    ("sdxl", Step(MethodSettings(EMBEDDING))),
])
def test_the_table_says_what_playing_says(name, step):
    family = {**PUBLISHED, "toybox": FAMILY}[name]
    assert table._found(family, table.name_of(step)) == step_moments(family, step)


def test_the_table_has_all_that_it_should():
    for name, family in table.families().items():
        assert set(table._read()[name]) == {*table._PLAYED, *map(table.name_of, table.steps_of(family))}


def test_an_inpainting_model_is_in_the_table_a_scaled_down_one_is_not():
    inpainting = replace(PUBLISHED["sd1"], unet=replace(PUBLISHED["sd1"].unet, in_channels=9))
    smaller = replace(PUBLISHED["sd1"], unet=replace(PUBLISHED["sd1"].unet, model_channels=64))
    assert (table._known(inpainting), table._known(smaller)) == ("sd1", "")


@pytest.mark.parametrize(("name", "batch", "size"), [("sd1", 2, (32, 32)), ("sd1", 4, (65, 63)), ("sdxl", 1, (48, 80))])
def test_weights_prepared_for_tiles_are_those_of_layers_with_pixels_enough(name, batch, size, tmp_path):
    """65x63 is halved to 33x32, 17x16 and 9x8."""
    checkpoint = open_checkpoint(write_hollow(tmp_path / "model.safetensors", name))
    family, seen = checkpoint.family, []
    unet = plays._module(family, UNET, "meta")
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, made: seen.append((layer, made.shape)))
    words = torch.empty(batch, 77, family.unet.context_dim, device="meta")
    pooled = torch.empty(batch, family.text[-1].projection, device="meta") if family.is_sdxl else None
    plays._predict(family, unet, torch.empty(batch, 4, *size, device="meta"), words, pooled)
    expected = sum(
        layer.weight.nbytes * 4 for layer, (count, out, height, width) in seen
        if layer.kernel_size == (3, 3) and layer.stride == (1, 1) and min(layer.in_channels, out) >= 256
        and count * height * width * 1.25 >= out
    )
    assert kernel_bytes(checkpoint, batch, [(8, 8), size]) == expected > 0


@pytest.fixture
def planned(picture_folder, tmp_path):
    """A plan on toybox, on a device, with changed settings."""

    folder = picture_folder("some", 3)

    def plan(device="cpu", **changes):
        settings = run_settings("toybox", folder, **changes)
        return result_of(make_plan(settings, tmp_path, device, CancelToken()), lambda event: None)

    return plan


def needed(plan, size=(128, 128)):
    return need(plan, draws_of(plan), [{"size": size, "images": plan.pictures, "encoded": plan.pictures}])


def test_on_a_gpu_only_what_is_on_it_counts(planned):
    counts = open_checkpoint("toybox").parameter_counts()
    unet, text, vae = (counts[part] for part in ("unet", "text_encoder", "vae"))
    row = needed(planned("cuda"), (512, 512))
    assert (row["phase"], row["weights"]) == ("training", 4 * (unet + text))   # the VAE has left, its work is done
    assert row["optimizer"] == 8 * (unet + text)
    assert row["total"] == row["weights"] + row["optimizer"] + row["working"] + row["average"]
    alone = needed(planned("cuda", method__train_text_encoder=False), (512, 512))
    assert alone["weights"] == 4 * unet                                        # captions are cached
    uncached = needed(planned("cuda", data__cache_latents="none", method__train_text_encoder=False), (512, 512))
    assert uncached["weights"] == 4 * (unet + vae)
    eight = needed(planned("cuda", train__optimizer="adamw8bit", ema__decay=0.99), (512, 512))
    assert (eight["optimizer"], eight["average"]) == (2 * (unet + text), 4 * (unet + text))
    assert needed(planned("cuda", ema__decay=0.99, ema__on_cpu=True), (512, 512))["average"] == 0
    half = needed(planned("cuda", method__kind="lora", train__mixed_precision="fp16"), (512, 512))
    assert half["weights"] == 2 * unet + 4 * text + half["optimizer"] // 2     # the frozen UNet lies in 16 bits


def test_what_is_encoded_on_the_way_needs_room_beside_the_training(planned):
    counts, own = open_checkpoint("toybox").parameter_counts(), {"method__kind": "embedding", "embedding__name": "sks",
                                                                 "embedding__init_words": "cat"}  # fmt: skip
    encoding = table.other_peak(FAMILY, table.ENCODE, 128 * 128)
    row = needed(planned("cuda", data__cache_latents="none", **own), (1024, 1024))
    assert row["phase"] == "training"
    assert row["working"] >= encoding
    assert row["weights"] >= 4 * sum(counts.values())
    crops = {"data__random_crop": True, "data__cache_crops": 2, "data__refresh_crops": "2 epochs"}
    both = needed(planned("cuda", **crops, **own), (1024, 1024))["working"]
    assert both > encoding + 0.9 * needed(planned("cuda", **own), (1024, 1024))["working"]


def test_longer_prompts_and_larger_previews_need_more(planned):
    short, long = (needed(planned("cuda", model__max_token_length=most), (512, 512)) for most in ("75", "225"))
    assert long["working"] > short["working"]
    shown = [{"prompt": "a cat", "width": 64, "height": 64, "batch_size": count} for count in (1, 400)]
    one, many = (needed(planned("cuda", preview__prompts=[entry]), (64, 64)) for entry in shown)
    assert (one["phase"], many["phase"]) == ("training", "previews")
    hires = {"prompt": "a cat", "width": 64, "height": 64, "enable_hr": True, "hr_resize_x": 2048, "hr_resize_y": 2048}
    assert needed(planned("cuda", preview__prompts=[hires]), (64, 64))["phase"] == "previews"


def test_an_average_that_lies_elsewhere_comes_to_be_shown(planned):
    own = {"ema__decay": 0.9, "train__step_in_backward": True, "train__max_grad_norm": 0.0,
           "train__gradient_checkpointing": True}  # fmt: skip
    row = needed(planned("cuda", **own, ema__on_cpu=True), (64, 64))
    counts = open_checkpoint("toybox").parameter_counts()
    assert (row["phase"], row["shown"]) == ("saving", 4 * (counts["unet"] + counts["text_encoder"]))
    assert needed(planned("cuda", **own), (64, 64)).get("shown", 0) == 0


def test_in_main_memory_everything_counts(planned, monkeypatch):
    monkeypatch.setattr(need_module, "spare_memory", lambda: 2**40)
    counts = open_checkpoint("toybox").parameter_counts()
    every = {"train__length": 4, "save__state_every": 2, "data__flip_p": 0.0}
    row = needed(planned(**every))
    assert row["weights"] == 4 * (counts["unet"] + counts["text_encoder"])     # nothing is drawn: the VAE was let go
    drawn = needed(planned(**every, preview__prompts=[{"prompt": "a cat", "width": 64, "height": 64}]))
    assert drawn["weights"] == 4 * sum(counts.values())
    assert row["program"] == PROGRAM
    assert row["total"] == sum(value for name, value in row.items() if name not in ("phase", "total"))
    assert row["cached"] == 3 * 2 * 4 * 16 * 16 * 4                            # mean and deviation of three pictures
    assert row["state_copy"] == 12 * (counts["unet"] + counts["text_encoder"])
    assert needed(planned(**every | {"save__state_every": None}))["state_copy"] == 0
    monkeypatch.setattr(need_module, "spare_memory", lambda: 0)
    assert "state_copy" not in needed(planned(**every))


def test_frozen_encoders_count_in_main_memory_while_something_may_ask_them(planned):
    counts = open_checkpoint("toybox").parameter_counts()
    alone = {"method__train_text_encoder": False, "train__length": 4}
    shown = [{"prompt": "a cat", "width": 64, "height": 64}]
    assert needed(planned(**alone))["weights"] == 4 * counts["unet"]
    assert needed(planned(**alone, preview__prompts=shown))["weights"] == 4 * sum(counts.values())
    for asking in ({"train__length": 1}, {"data__shuffle_caption": True}, {"data__cache_text_embeddings": "none"}):
        row = needed(planned(**{**alone, **asking}))
        assert row["weights"] == 4 * (counts["unet"] + counts["text_encoder"]), asking


def test_weights_that_are_prepared_for_convolutions_count(planned, monkeypatch, picture_folder):
    monkeypatch.setattr(convolutions, "TILED_CHANNELS", 64)  # toybox has few
    lora, toybox = {"method__kind": "lora"}, open_checkpoint("toybox")
    row = needed(planned(**lora))
    assert row["prepared"] == kernel_bytes(toybox, 1, [(16, 16)]) > 0
    assert "weights prepared for convolutions" in memory_text(row)
    own = {"name": "sks", "instance_prompt": "sks", "instance_dir": str(picture_folder("own", 3)), "class_prompt": "a",
           "class_dir": str(picture_folder("class", 3)), "num_class_images": 3}  # fmt: skip
    both = needed(planned(**lora, data__concepts=[own], train__batch_size=2))
    assert both["prepared"] == kernel_bytes(toybox, 4, [(16, 16)]) > row["prepared"]
    sizes = [{"size": size, "images": 1, "encoded": 1} for size in ((64, 64), (128, 128), (64, 128))]
    plan = planned(**lora)
    assert need(plan, draws_of(plan), sizes)["prepared"] == row["prepared"]
    assert needed(planned(method__train_unet=False))["prepared"] == row["prepared"]
    for without in ({"train__gradient_checkpointing": True}, {"train__prepared_convolutions": False},
                    {"train__mixed_precision": "bf16"}, {"method__kind": "full"}, {"device": "cuda"}):  # fmt: skip
        assert needed(planned(**{**lora, **without}))["prepared"] == 0


@pytest.mark.parametrize("name", ["sd1", "toybox"])
def test_weights_that_are_prepared_for_encoding_are_those_of_its_layers(name, monkeypatch):
    family = table.families()[name]
    monkeypatch.setattr(tiles, "ENCODER_CHANNELS", 64)
    monkeypatch.setattr(convolutions, "ENCODER_CHANNELS", 64)
    layers = [layer for layer in empty_module(family, VAE).encoder.modules() if convolutions.encodes_in_tiles(layer)]
    weights = sum(layer.in_channels * layer.out_channels for layer in layers)
    most = max((max(layer.in_channels, layer.out_channels) for layer in layers), default=0)
    assert tiles.encoder_bytes(family.vae, 64 * 64) == KERNEL_BYTES * (weights + 3 * TILES_AT_ONCE * most)


def test_no_weights_are_prepared_for_pictures_that_are_too_small():
    vae = table.families()["sd1"].vae
    sizes = [tiles.encoder_bytes(vae, side * side) for side in (2, 4, 8, 16, 32, 64)]
    tile = KERNEL_BYTES * 3 * TILES_AT_ONCE
    of_256 = KERNEL_BYTES * 3 * 256**2              # 128 -> 256 is left to torch
    of_512 = KERNEL_BYTES * (256 + 3 * 512) * 512
    last = KERNEL_BYTES * (4 + 4) * 512**2
    assert sizes[0] == 0
    assert sizes[1] == of_256 + tile * 256          # 16 x 16 where 256 channels come out, 8 x 8 where 512 do
    assert sizes[3] == of_256 + of_512 + tile * 512
    assert sizes[4] == sizes[5] == of_256 + of_512 + last + tile * 512


def test_weights_that_are_prepared_for_encoding_count_while_they_are_there(planned, monkeypatch):
    monkeypatch.setattr(tiles, "ENCODER_CHANNELS", 1)
    monkeypatch.setattr(convolutions, "ENCODER_CHANNELS_A_PIXEL", 1000)
    bytes_of, sizes = tiles.encoder_bytes(planned().family.vae, 64), [{"size": (64, 64), "images": 1, "encoded": 1}]
    assert bytes_of > 0

    def prepared(phase, **changes):
        plan = planned(**changes)
        rows = [*need_module._before(plan, sizes), need_module._training(
            plan, 0, need_module._kept(plan, sizes), sizes)]  # fmt: skip
        return next(row.get("prepared", 0) for row in rows if row["phase"] == phase)

    assert prepared("encoding pictures") == bytes_of
    assert prepared("training") == 0
    assert prepared("training", data__cache_latents="none") == bytes_of
    for without in ({"train__prepared_convolutions": False}, {"device": "cuda"}, {"train__mixed_precision": "bf16"}):
        assert prepared("encoding pictures", **without) == 0


def test_what_is_taken_ahead_is_sure_to_be_held(planned):
    counts = open_checkpoint("toybox").parameter_counts()
    unet, text = counts["unet"], counts["text_encoder"]
    assert held_from_the_start(planned("cuda")) == zeroed_from_the_start(planned("cuda")) == 0
    assert held_from_the_start(planned()) == 4 * unet
    assert zeroed_from_the_start(planned()) == 8 * (unet + text)  # AdamW's moments are of both
    assert held_from_the_start(planned(ema__decay=0.9)) == 4 * unet + 4 * (unet + text)
    for changes in ({"train__optimizer": "lion"}, {"train__optimizer_args": {"amsgrad": True}}):
        assert held_from_the_start(planned(**changes)) == 4 * unet
        assert zeroed_from_the_start(planned(**changes)) == 0
    before = planned(method__train_text_encoder=False)
    assert used_before_training(before) > 4 * (counts["vae"] + text)
    assert used_before_training(before) - 4 * text == used_before_training(planned())
    assert zeroed_ahead(before) == max(0, 8 * unet - used_before_training(before))
    assert zeroed_ahead(planned("cuda")) == 0
    own = {"method__kind": "embedding", "embedding__name": "sks", "embedding__init_words": "cat"}
    for changes in ({}, {"method__kind": "lora"}, own, {"method__train_unet": False}, {"train__step_in_backward": True},
                    {"train__optimizer": "prodigy"}, {"ema__decay": 0.9}, {"train__mixed_precision": "bf16"}):
        plan = planned(**changes)
        ahead = held_from_the_start(plan) + zeroed_from_the_start(plan)
        assert 0 < ahead < needed(plan, (64, 64))["total"] - PROGRAM, changes


def test_the_hungriest_part_of_a_run_counts(planned):
    small = {"method__kind": "embedding", "embedding__name": "sks", "embedding__init_words": "cat"}
    large = [{"prompt": "a cat", "width": 1024, "height": 1024}]
    assert needed(planned(**small), (64, 64))["phase"] != "previews"
    assert needed(planned(**small, preview__prompts=large), (64, 64))["phase"] == "previews"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has one")
def test_a_run_can_be_planned_for_a_card_that_is_not_here(planned):
    document = forecast(planned("cuda"))
    assert document["memory_available"] == 0
    assert "more than there is" not in forecast_text({**document, "memory_bytes": 2**50}, resolve(RunSettings, []))
    here = forecast_text({**document, "memory_bytes": 2**50, "memory_available": 2**33}, resolve(RunSettings, []))
    assert "more than there is (8.0 GB): see --fit" in here


CASES = {
    "full": (), "checkpointing": ("train.gradient_checkpointing=true",),
    "8-bit": ("train.optimizer=adamw8bit",), "ema": ("ema.decay=0.99",),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_foretold_is_then_measured(name, tmp_path):
    settings = {"train.length": 3, "train.batch_size": 20, "preview.every": "null", "preview.prompts": "[]"}
    command = [sys.executable, "-m", "lib_sdtrain", "train", "--preset", "toybox-dreambooth", "--json"]
    for text in (*(f"{path}={value}" for path, value in settings.items()), *CASES[name]):
        command += ["--set", text]
    told = json.loads(subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout)
    assert told["memory_available"] > told["memory_bytes"]
    measured = run_process([*command, "--run-dir", str(tmp_path / "runs" / "run")], {}).anonymous
    assert told["memory_bytes"] == pytest.approx(measured, rel=0.1)
