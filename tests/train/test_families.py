"""Every family trains: what the UNet is told, what is learnt, and how the result says what it is."""
from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from lib_sdtrain import train
from lib_sdtrain.data.concepts import Picture
from lib_sdtrain.data.draws import Draw
from lib_sdtrain.data.pictures import cover, pad
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Step, Stopped, Validation
from lib_sdtrain.model.build import empty_module
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.train.conditioning import Conditioning
from lib_sdtrain.train.hidden_picture import draw_mask
from lib_sdtrain.train.prompts import Words
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.sizes import sizes_of
from lib_sdtrain.train.validation import Validator
from tests.tiny import random_tensors, tiny_family, write_tiny
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_step import alpha_bar, double_batch, gradients, make_trainer


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("sdxl") / "xl.safetensors", "sdxl")


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory) -> Path:
    """The tiny SD1 with nine input channels."""
    path = tmp_path_factory.mktemp("inpainting") / "fill.safetensors"
    tensors = random_tensors(tiny_family(), dtype=torch.float32)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    more = torch.randn(tensors[first].shape[0], 5, 3, 3, generator=torch.Generator().manual_seed(3)) * 0.1
    tensors[first] = torch.cat([tensors[first], more], dim=1)
    save_file(tensors, path)
    text = write_tiny(path.parent / "x.safetensors").with_suffix(".yaml").read_text()
    path.with_suffix(".yaml").write_text(text.replace("in_channels: 4", "in_channels: 9"))
    return path


def result_of(seen) -> Path:
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"])


# SDXL


def sizes(size, crop, flip, fitted) -> tuple[int, ...]:
    return sizes_of(Draw(0, Picture(Path("x.png"), "0", size, None), "", flip, crop, fitted))


@pytest.mark.parametrize(("size", "crop", "flip", "wanted"), [
    # 2000x1000 resized to 1024 high is 2048 wide: 1024 pixels of room beside the crop
    ((2000, 1000), (0.0, 0.0), False, (1000, 2000, 0, 0, 1024, 1024)),
    ((2000, 1000), (0.5, 0.5), False, (1000, 2000, 0, 512, 1024, 1024)),
    ((2000, 1000), (0.25, 0.5), False, (1000, 2000, 0, 256, 1024, 1024)),
    ((2000, 1000), (0.25, 0.5), True, (1000, 2000, 0, 768, 1024, 1024)),
    ((512, 1024), (0.5, 1.0), False, (1024, 512, 1024, 0, 1024, 1024)),
])  # fmt: skip
def test_sizes_are_of_the_file_and_of_the_crop_in_the_resized_picture(size, crop, flip, wanted):
    target = (1024, 1024)
    assert sizes(size, crop, flip, cover(size, target, crop)) == wanted
    assert sizes(size, crop, flip, pad(size, target)) == (size[1], size[0], 0, 0, 1024, 1024)


def sinusoid(number: float) -> torch.Tensor:
    """SGM's embedding of one size: 128 cosines, then 128 sines, of frequencies 1 to 1/10000."""
    frequencies = torch.tensor([math.exp(-math.log(10000) * i / 128) for i in range(128)], dtype=torch.float64)
    return torch.cat([(number * frequencies).cos(), (number * frequencies).sin()])


def xl_words(model, prompt):
    """Penultimate states of both encoders side by side, and the second's projected end; padding is 0 there."""
    said, pooled = [], None
    for encoder, tokenizer, filler in zip(model.text_encoders, model.tokenizers, (49407, 0), strict=True):
        ids = tokenizer.encode(prompt)
        ids = torch.tensor([[49406, *ids, 49407, *[filler] * (75 - len(ids))]])
        answer = encoder(ids, output_hidden_states=True)
        said.append(answer.hidden_states[-2])
        if filler == 0:
            ends = encoder.text_model.final_layer_norm(answer.hidden_states[-1])[:, (ids[0] == 49407).int().argmax()]
            pooled = ends @ encoder.text_projection.weight.T
    return torch.cat(said, dim=2), pooled


def test_an_sdxl_step_equals_a_reference_written_out_by_hand(sdxl, picture_folder, tmp_path):
    settings = run_settings(
        sdxl, picture_folder("i", 3), picture_folder("c", 3), train__batch_size=2, method__train_text_encoder_2=True,
        loss__prior_loss_weight=0.5,
    )
    trainer = make_trainer(settings, tmp_path)
    batch = double_batch(trainer)
    ours = trainer.loss(batch)
    our_gradients = gradients(trainer, ours)
    # 80x64 pictures cover 64x64 at their own size: 16 pixels of room, the crop in the middle
    assert batch.sizes.tolist() == [[64, 80, 0, 8, 64, 64]] * 4
    losses = []
    for x, n, t, prompt in zip(batch.latents, batch.noise, batch.timesteps, batch.prompts, strict=True):
        a = alpha_bar(int(t))
        context, pooled = xl_words(trainer.model, prompt)
        vector = torch.cat([pooled, *(sinusoid(s)[None] for s in (64.0, 80.0, 0.0, 8.0, 64.0, 64.0))], dim=1)
        unet = trainer.model.unet
        # diffusers' embedding of sizes, bypassed: its add_embedding is given the vector made here
        unet.add_time_proj.forward = lambda _ids, v=vector: v[:, 64:].reshape(6, 256)
        said = unet(
            (a**0.5 * x + (1 - a) ** 0.5 * n)[None], t[None], context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": torch.zeros(1, 6, dtype=torch.float64)},
        ).sample[0]
        del unet.add_time_proj.forward
        losses.append(functional.mse_loss(said, n))
    theirs = (losses[0] + losses[1]) / 2 + 0.5 * (losses[2] + losses[3]) / 2
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    their_gradients = gradients(trainer, theirs)
    assert float((our_gradients - their_gradients).norm() / their_gradients.norm()) < 1e-5


def changed_heads(before: Path, after: Path) -> set[str]:
    old, new = load_file(before), load_file(after)
    assert old.keys() == new.keys()
    assert all(old[key].dtype == new[key].dtype and old[key].shape == new[key].shape for key in old)
    return {".".join(key.split(".")[:3]) for key in old if not torch.equal(old[key], new[key])}


FIRST, SECOND = "conditioner.embedders.0", "conditioner.embedders.1"


@pytest.mark.parametrize(("one", "two", "wanted"), [
    (True, False, {FIRST}), (False, True, {SECOND}), (True, True, {FIRST, SECOND}), (False, False, set()),
])
def test_either_text_encoder_of_sdxl_is_trained_or_both_or_none(sdxl, picture_folder, tmp_path, one, two, wanted):
    settings = run_settings(
        sdxl, picture_folder("i", 2), train__length=2, method__train_text_encoder=one, method__train_text_encoder_2=two,
        train__text_encoder_lr=2e-3, train__text_encoder_2_lr=3e-3,
    )
    child = result_of(finish(train(settings, run_dir=tmp_path / "run")))
    unet = {"model.diffusion_model.input_blocks", "model.diffusion_model.output_blocks"}
    changed = changed_heads(sdxl, child)
    assert unet <= changed
    assert {head for head in changed if head.startswith("conditioner")} == wanted
    assert open_checkpoint(child).family == open_checkpoint(sdxl).family
    rates = {group["name"]: group["base_lr"] for group in make_trainer(settings, tmp_path).optimizer.param_groups}
    expected = {"unet": 1e-3} | ({"text_encoder": 2e-3} if one else {}) | ({"text_encoder_2": 3e-3} if two else {})
    assert rates == expected


def test_a_stopped_sdxl_run_goes_on_bit_for_bit(sdxl, picture_folder, tmp_path):
    settings = run_settings(sdxl, picture_folder("i", 3), method__train_text_encoder_2=True, data__flip_p=0.5)
    straight = result_of(finish(train(settings, run_dir=tmp_path / "straight"))).read_bytes()
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    assert result_of(finish(resume(tmp_path / "cut"))).read_bytes() == straight


def test_a_second_text_encoder_is_asked_for_only_where_there_is_one(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 1), method__train_text_encoder_2=True)
    with pytest.raises(UserError, match=r"method\.train_text_encoder_2: sd1 has one text encoder"):
        finish(train(settings, run_dir=tmp_path / "run"))


# Inpainting


@pytest.mark.parametrize("rule", ["shapes", "whole", "mixed"])
def test_masks_are_drawn_by_their_rule(rule):
    masks = [draw_mask(rule, (64, 48), random.Random(seed)) for seed in range(400)]
    assert all(mask.shape == (48, 64) and set(mask.unique().tolist()) <= {0.0, 1.0} for mask in masks)
    whole = sum(bool(mask.all()) for mask in masks) / len(masks)
    shares = torch.stack([mask.mean() for mask in masks])
    if rule == "whole":
        assert whole == 1
    else:
        # E[w h] / (W H) = 1/4 for rectangles, pi/4 of that for ellipses, each half of the time
        expected = 0.25 * (1 + math.pi / 4) / 2
        expected = expected if rule == "shapes" else 0.25 + 0.75 * expected
        assert float(shares.mean()) == pytest.approx(expected, abs=0.04)
        assert whole == pytest.approx(0.0 if rule == "shapes" else 0.25, abs=0.06)


def test_an_inpainting_step_sees_the_mask_and_what_it_leaves(inpainting, picture_folder, tmp_path):
    settings = run_settings(inpainting, picture_folder("i", 2), train__batch_size=2, model__inpainting_mask="shapes")
    trainer = make_trainer(settings, tmp_path)
    batch = double_batch(trainer)
    assert batch.hidden.shape == (2, 5, 8, 8)
    again = trainer.batch_of(list(trainer.draws_of(range(2))))
    assert torch.equal(again.hidden, batch.hidden)
    ours = trainer.loss(batch)
    losses = []
    for index, (x, n, t) in enumerate(zip(batch.latents, batch.noise, batch.timesteps, strict=True)):
        a = alpha_bar(int(t))
        seen = torch.cat([a**0.5 * x + (1 - a) ** 0.5 * n, batch.hidden[index].double()])[None]
        words = trainer.prompts.encode([batch.prompts[index]]).context
        losses.append(functional.mse_loss(trainer.model.unet(seen, t[None], words).sample[0], n))
    assert ours.item() == pytest.approx((sum(losses) / 2).item(), rel=1e-9)


def test_an_inpainting_checkpoint_trains_and_stays_one(inpainting, picture_folder, tmp_path):
    settings = run_settings(inpainting, picture_folder("i", 2), train__length=3)
    seen = finish(train(settings, run_dir=tmp_path / "a"))
    child = result_of(seen)
    assert open_checkpoint(child).family.variant == "inpainting"
    key = "model.diffusion_model.input_blocks.0.0.weight"
    old, new = load_file(inpainting)[key], load_file(child)[key]
    assert all(not torch.equal(old[:, channel], new[:, channel]) for channel in range(9))
    assert result_of(finish(train(settings, run_dir=tmp_path / "b"))).read_bytes() == child.read_bytes()
    assert len(of_kind(seen, Step)) == 3


def test_validation_hides_the_same_of_its_pictures_whatever_the_training_is_seeded_with(
    inpainting, picture_folder, tmp_path
):
    folders = {"validation__dir": str(picture_folder("held", 2)), "validation__timesteps": 2}
    losses = []
    for number, seeds in enumerate([(0, 7), (1, 7), (0, 8)]):
        own = dict(zip(("train__seed", "validation__seed"), seeds, strict=True))
        picked = picture_folder(f"i{number}", 2)
        trainer = make_trainer(run_settings(inpainting, picked, **folders, **own), tmp_path / str(number))
        for module in trainer.model.parts.values():
            module.float()
        seen = list(Validator(trainer.plan, trainer).run(CancelToken()))
        losses += [event.loss for event in of_kind(seen, Validation) if event.name == "validation"]
    assert losses[0] == losses[1] != losses[2]


# v-prediction and zero terminal SNR


def test_zero_terminal_snr_trains_on_the_published_table_and_says_so(tmp_path, picture_folder):
    parent = write_tiny(tmp_path / "v.safetensors", "sd2")
    settings = run_settings(
        parent, picture_folder("i", 2), model__prediction_type="v_prediction", model__zero_terminal_snr=True,
        loss__min_snr_gamma=5.0,
    )
    table = make_trainer(settings, tmp_path).criterion.alphas_cumprod
    for step, wanted in ((0, 0.99915), (1, 0.998233), (499, 0.242359), (998, 1.968e-7), (999, 0.0)):
        assert float(table[step]) == pytest.approx(wanted, rel=1e-3, abs=1e-12)
    child = open_checkpoint(result_of(finish(train(settings, run_dir=tmp_path / "run"))))
    assert child.family.schedule.zero_terminal_snr
    assert child.family.prediction_type == "v_prediction"
    assert set(child.file_keys) - set(open_checkpoint(parent).file_keys) == {"ztsnr"}
    assert "parameterization: v" in child.path.with_suffix(".yaml").read_text()
    again = run_settings(child.path, picture_folder("j", 2))
    assert make_trainer(again, tmp_path).model.family.schedule.zero_terminal_snr


def test_an_sdxl_that_is_made_to_predict_v_says_so(sdxl, picture_folder, tmp_path):
    settings = run_settings(sdxl, picture_folder("i", 2), model__prediction_type="v_prediction", train__length=1)
    child = open_checkpoint(result_of(finish(train(settings, run_dir=tmp_path / "run"))))
    assert set(child.file_keys) - set(open_checkpoint(sdxl).file_keys) == {"v_pred"}
    settings = run_settings(child.path, picture_folder("j", 2), model__prediction_type="epsilon", train__length=1)
    back = open_checkpoint(result_of(finish(train(settings, run_dir=tmp_path / "back"))))
    assert back.family.prediction_type == "epsilon"
    assert set(back.file_keys) == set(open_checkpoint(sdxl).file_keys)


def test_zero_terminal_snr_needs_a_model_that_predicts_v(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 1), model__zero_terminal_snr=True,
        loss__scale_v_pred_loss_like_noise_pred=True,
    )
    with pytest.raises(UserError, match=r"model\.zero_terminal_snr: at the last step"):
        finish(train(settings, run_dir=tmp_path / "run"))
    plain = replace(settings, model=replace(settings.model, zero_terminal_snr=False))
    with pytest.raises(UserError, match=r"scale_v_pred_loss_like_noise_pred: the model predicts the noise"):
        finish(train(plain, run_dir=tmp_path / "run"))


# Full size


@pytest.mark.parametrize(("name", "channels"), [("sd1", 4), ("sd1", 9), ("sd2", 4), ("sdxl", 4), ("sdxl", 9)])
def test_the_published_sizes_take_what_they_are_told(name, channels):
    """On the meta device: shapes alone."""
    known = PUBLISHED[name]
    family = replace(known, unet=replace(known.unet, in_channels=channels))
    pooled = family.text[-1].projection
    with torch.device("meta"):
        words = Words(torch.empty(2, 154, family.unet.context_dim), torch.empty(2, pooled) if pooled else None)
        batch = SimpleNamespace(
            sizes=torch.empty(2, 6) if pooled else None, hidden=torch.empty(2, 5, 64, 48) if channels == 9 else None
        )
        answer = Conditioning(family, None, "mixed").predict(
            empty_module(family, "unet"), torch.empty(2, 4, 64, 48), torch.empty(2), words, batch
        )
    assert answer.shape == (2, 4, 64, 48)
