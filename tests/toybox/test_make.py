"""From trained parts to the published file, without training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from lib_sdtrain.model import build, text
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import VAEConfig
from lib_sdtrain.model.keys import UNET, VAE
from lib_sdtrain.toybox import judge
from lib_sdtrain.toybox.make import assemble, autoencoder, diffusion, export, layout
from lib_sdtrain.toybox.make.state import Run
from lib_sdtrain.toybox.make.words import Vocabulary, framed, used_vocabulary
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


def test_the_vocabulary_holds_every_caption():
    vocabulary = used_vocabulary()
    for index in range(200):
        words = framed(diffusion.caption(any_scene(9, index), keyed("x", index)))
        assert [vocabulary.ids[i] for i in vocabulary.compact([list(words)])[0]] == list(words)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model with random weights, published."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(1)
    vae, both, vocabulary = layout.autoencoder(), diffusion.TextAndUNet(used_vocabulary()), used_vocabulary()
    latents = {"vae": vae.state_dict(), "mean": torch.zeros(4), "std": torch.ones(4), "step": 7}
    torch.save(latents, folder / "latents.pt")
    torch.save({"extra": {"average": both.state_dict()}, "step": 9}, folder / "diffusion.pt")
    out = folder / "toybox.safetensors"
    assemble.publish(folder, out)
    return out, both, vocabulary


def test_the_published_file_is_read_as_the_model_that_was_trained(published):
    out, both, vocabulary = published
    checkpoint = open_checkpoint(out)
    assert replace(checkpoint.family, resolution=layout.SIZE) == layout.FAMILY
    assert checkpoint.parts == {"unet": True, "text_encoder": True, "vae": True, "ema": False}
    assert out.stat().st_size <= 40_000_000
    model = build.load_model(checkpoint, "cpu", torch.float32)
    ids = torch.tensor([framed("a photo of a red cat at night")])
    compact = vocabulary.compact(ids.tolist())
    noisy, steps = torch.randn(1, 4, 16, 16), torch.tensor([500])
    with torch.no_grad():
        hidden = text.encode(model.text_encoders[0], layout.TEXT, ids, 2).hidden
        wanted = both.eval()(noisy, steps, compact, 2)
        got = model.parts[UNET](noisy, steps, hidden).sample
    assert (got - wanted).abs().max() < 0.01 * wanted.std()


def test_publishing_twice_gives_the_same_bytes(published, tmp_path):
    out, _, _ = published
    again = tmp_path / "toybox.safetensors"
    assemble.publish(out.parent, again)
    assert again.read_bytes() == out.read_bytes()
    assert again.with_suffix(".yaml").read_text() == out.with_suffix(".yaml").read_text()


def test_a_better_decoder_is_published_with_the_latents_it_belongs_to(published, tmp_path):
    out, _, _ = published
    for name in ("latents.pt", "diffusion.pt"):
        (tmp_path / name).write_bytes((out.parent / name).read_bytes())
    decoder = layout.autoencoder()
    torch.save({"model": decoder.state_dict()}, tmp_path / "decoder.pt")
    assemble.publish(tmp_path, tmp_path / "toybox.safetensors")
    model = build.load_model(open_checkpoint(tmp_path / "toybox.safetensors"), "cpu", torch.float32)
    got = model.parts[VAE].state_dict()["decoder.conv_in.weight"]
    assert torch.allclose(got, decoder.state_dict()["decoder.conv_in.weight"], atol=1e-3)


def test_a_step_of_diffusion_training_depends_on_its_number_alone():
    vocabulary = used_vocabulary()
    torch.manual_seed(0)
    model = diffusion.TextAndUNet(vocabulary)
    latents = diffusion.Latents(torch.randn(10, 4, 16, 16), torch.zeros(4), torch.ones(4))
    with torch.no_grad():
        first, again, other = (diffusion.step_loss(model, latents, vocabulary, 2, step) for step in (3, 3, 4))
    assert first == again != other


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


def test_vocabulary_positions_follow_the_ids():
    assert Vocabulary((3, 8, 9)).compact([[9, 3], [8, 8]]).tolist() == [[2, 0], [1, 1]]
