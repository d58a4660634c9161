"""From trained parts to the published file, without training."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Finished, Step
from lib_sdtrain.model import build
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import VAEConfig
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.toybox import judge
from lib_sdtrain.toybox.captions import caption
from lib_sdtrain.toybox.make import assemble, autoencoder, diffusion, export, layout
from lib_sdtrain.toybox.make.state import Run
from lib_sdtrain.toybox.make.words import used_tokens
from lib_sdtrain.toybox.scene import any_scene, keyed

FLAT = VAEConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1)


@pytest.fixture
def vae():
    torch.manual_seed(3)
    return AutoencoderKL(**build.vae_config(FLAT, 0.18215)).eval()


def latents_of(vae, pictures):
    with torch.no_grad():
        return vae.encode(pictures).latent_dist


def test_rescaled_latents_have_unit_variance_and_decode_to_the_same_picture(vae):
    pictures = torch.rand(8, 3, 32, 32) * 2 - 1
    before = latents_of(vae, pictures)
    mean, std = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
    other = AutoencoderKL(**build.vae_config(FLAT, 0.18215)).eval()
    other.load_state_dict(export.with_unit_variance(vae.state_dict(), mean, std, 0.18215))
    after = latents_of(other, pictures)
    scaled = after.mean * 0.18215
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-5)
    # the posterior's spread moves with its mean
    assert torch.allclose(after.std / after.mean.std((0, 2, 3), keepdim=True),
                          before.std / before.mean.std((0, 2, 3), keepdim=True), rtol=1e-4)  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(other.decode(after.mean).sample, vae.decode(before.mean).sample, atol=1e-4)


def test_every_row_of_the_embedding_differs_and_trained_rows_stay():
    known = torch.randn(3, 32)
    full = export.full_embedding(known, [5, 70, 999], 1000)
    assert torch.equal(full[[5, 70, 999]], known)
    unknown = full[[row for row in range(1000) if row not in (5, 70, 999)]]
    assert len({tuple(row.tolist()) for row in unknown}) == 997
    assert len(set(unknown.abs().flatten().tolist())) == 1
    assert torch.equal(full, export.full_embedding(known, [5, 70, 999], 1000))


def test_the_used_tokens_hold_every_caption():
    used, tokenizer = set(used_tokens()), Tokenizer()
    for index in range(200):
        said = caption(any_scene(9, index), keyed("x", index))
        assert used.issuperset(tokenizer.frame(tokenizer.encode(said)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All stages in small: a random autoencoder, six pictures, two steps of training, the published file."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(1)
    torch.save({"model": layout.autoencoder().state_dict(), "step": 7}, folder / "autoencoder.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "MEASURED", 50)
        diffusion.write_pictures(folder, 6)
        diffusion.write_beginning(folder)
    settings = diffusion.SETTINGS.read_text(encoding="utf-8").replace("batch_size: 32", "batch_size: 2")
    small = folder / "small.yaml"
    small.write_text(settings.split("preview:")[0] + "save: {name: toybox}\n".replace("{", "{{").replace("}", "}}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "SETTINGS", small)
        events = [*diffusion.train(folder, 1), *diffusion.train(folder, 2)]
    out = folder / "toybox.safetensors"
    assemble.publish(folder, out)
    return folder, events, out


def test_the_beginning_has_unit_variance_latents_and_fresh_parts(made):
    folder, _, _ = made
    vae = build.load_model(open_checkpoint(folder / "beginning.safetensors"), "cpu", torch.float32).vae
    pictures = torch.from_numpy(np.load(folder / "measured-pictures.npy")[:50]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        scaled = vae.encode(pictures).latent_dist.mean * layout.FAMILY.scale_factor
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=0.02)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=0.02)


def test_a_beginning_takes_over_what_fits_of_an_earlier_toybox(tmp_path, made, monkeypatch):
    _, _, parent = made
    inherited = diffusion.states_of(parent)
    wider = replace(layout.FAMILY.unet, channel_mult=(1, 1, 2, 3))
    monkeypatch.setattr(layout, "FAMILY", replace(layout.FAMILY, unet=wider))
    diffusion.write_beginning(tmp_path, parent)
    begun = diffusion.states_of(tmp_path / "beginning.safetensors")
    for part in (VAE, TEXT_ENCODERS[0]):
        assert all(torch.equal(begun[part][name], value) for name, value in inherited[part].items()), part
    assert torch.equal(begun[UNET]["conv_in.weight"], inherited[UNET]["conv_in.weight"])
    inner = "mid_block.resnets.0.conv1.weight"
    assert begun[UNET][inner].shape == (192, 192, 3, 3) != inherited[UNET][inner].shape
    assert open_tensors(tmp_path / "beginning.safetensors").metadata[diffusion.AUTOENCODER_STEPS] == "7"


def test_a_beginning_needs_an_autoencoder(tmp_path):
    with pytest.raises(UserError, match="no autoencoder"):
        diffusion.write_beginning(tmp_path)


def test_training_is_an_ordinary_run_that_goes_on(made):
    _, events, _ = made
    steps = [event.step for event in events if isinstance(event, Step)]
    assert steps == [1, 2]
    assert sum(isinstance(event, Finished) for event in events) == 2


def test_the_published_file_is_the_model_that_was_trained(made):
    folder, _, out = made
    checkpoint = open_checkpoint(out)
    assert replace(checkpoint.family, resolution=layout.SIZE) == layout.FAMILY
    assert checkpoint.parts == {"unet": True, "text_encoder": True, "vae": True, "ema": False}
    assert out.stat().st_size <= 40 * 2**20
    assert open_tensors(out).metadata["sdtrain.diffusion_steps"] == "2"
    result = folder / "diffusion" / "checkpoints" / "toybox.safetensors"
    trained, published = diffusion.states_of(result), diffusion.states_of(out)
    for part, state in trained.items():
        for name, tensor in state.items():
            if name != assemble.EMBEDDING:
                assert torch.equal(tensor, published[part][name]), name
    known = torch.tensor(used_tokens())
    before, after = (states[TEXT_ENCODERS[0]][assemble.EMBEDDING] for states in (trained, published))
    assert torch.equal(before[known], after[known])


def test_publishing_twice_gives_the_same_bytes(made, tmp_path):
    folder, _, out = made
    again = tmp_path / "toybox.safetensors"
    assemble.publish(folder, again)
    assert again.read_bytes() == out.read_bytes()
    assert again.with_suffix(".yaml").read_text() == out.with_suffix(".yaml").read_text()


def test_a_decoder_that_was_trained_on_is_published(made, tmp_path):
    folder, _, _ = made
    better = tmp_path / "made"
    shutil.copytree(folder, better)
    decoder = layout.autoencoder()
    torch.save({"model": decoder.state_dict(), "step": 3}, better / "decoder.pt")
    assemble.publish(better, better / "toybox.safetensors")
    got = diffusion.states_of(better / "toybox.safetensors")[VAE]["decoder.conv_in.weight"]
    assert torch.allclose(got, decoder.state_dict()["decoder.conv_in.weight"], atol=1e-3)


def test_a_training_goes_on_where_its_state_was_saved(tmp_path):
    def run():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return Run(tmp_path / "run", model, optimizer, save_every=2)

    def advance(run, until):
        for step in range(run.step, until):
            loss = (run.model(torch.full((1, 3), float(step))) ** 2).sum()
            loss.backward()
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.done(step, loss=loss.item())
        return run.model.weight.detach().clone()

    straight = advance(run(), 6)
    (tmp_path / "run.pt").unlink()
    advance(run(), 4)
    resumed = run()
    assert resumed.step == 4
    assert torch.equal(advance(resumed, 6), straight)


def test_psnr_is_that_of_the_textbook():
    pictures = np.full((2, 8, 8, 3), 100, np.uint8)

    class Off(torch.nn.Module):
        def encode(self, batch):
            kept = torch.distributions.Normal(batch, 1.0)
            return type("Coded", (), {"latent_dist": kept})

        def decode(self, latents):
            return type("Decoded", (), {"sample": latents + 0.1})

    # 0.1 of a range of 2 is 1/20: 20 log10(20)
    assert autoencoder.psnr(Off(), pictures) == pytest.approx(26.0206, abs=1e-3)


def test_the_judge_counts_a_property_only_where_it_was_asked_for():
    scenes = [replace(any_scene(0, i), kind="cat", colour="red") for i in range(4)]
    read = judge.Reading("cat", "red", "plain", "beach", True)
    readings = [read, read, replace(read, colour="blue"), replace(read, kind="car")]
    assert judge.accuracy(readings, scenes)["kind"] == 0.75
    assert judge.accuracy(readings, scenes)["colour"] == 0.75
    assert judge.subject_fidelity(readings) == 0.75


def test_the_judge_learns_every_value_of_every_property():
    scenes = [judge.judged_scene(0, index) for index in range(2000)]
    for name, values in judge.HEADS.items():
        shares = [sum(getattr(s, name) == value for s in scenes) / len(scenes) for value in values]
        assert min(shares) > 0.5 / len(values)
