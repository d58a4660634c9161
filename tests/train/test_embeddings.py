"""Textual inversion: a word is learnt, the model stays, and who names the word gets what training had."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file

from lib_sdtrain import train
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Finished, Preview, Saved, Stopped, result_of
from lib_sdtrain.model import text
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.hashes import sha256
from lib_sdtrain.sample.embeddings import Embedding, read_embedding
from lib_sdtrain.sample.generate import Surroundings, generate, library_for
from lib_sdtrain.sample.text_encoding import EncodingCache, TextReader
from lib_sdtrain.settings.run import ModelSettings
from lib_sdtrain.settings.run_embedding import EmbeddingSettings
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest
from lib_sdtrain.train.embeddings import Inversions, initial_vectors
from lib_sdtrain.train.preview_requests import preview_requests
from lib_sdtrain.train.prompts import PromptEncoder
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.starting import resolve_run
from lib_sdtrain.train.survey import make_survey
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_step import double_batch, make_trainer

WORD = "my-cat"
LEARNT = {
    "method__kind": "embedding", "embedding__name": WORD, "embedding__vectors": 2, "embedding__init_words": "a cat",
    "preview__prompts": [{"prompt": f"a photo of {WORD}", "steps": 2, "width": 64, "height": 64, "seed": 5}],
}  # fmt: skip


@pytest.fixture(params=["sd1", "sd2", "sdxl"])
def parent(request, tmp_path) -> Path:
    return write_tiny(tmp_path / f"{request.param}.safetensors", request.param)


def settings_of(checkpoint, instance, **changes):
    concept = {"name": "cat", "instance_dir": str(instance), "instance_prompt": f"a photo of {WORD}"}
    return run_settings(checkpoint, instance, data__concepts=[concept], **{**LEARNT, **changes})


def vectors_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{WORD}.safetensors")


def test_the_word_is_learnt_and_drawn_by_name_as_while_training(parent, picture_folder, tmp_path):
    settings = settings_of(parent, picture_folder("i", 2), train__length=2, save__embedding_dir=str(tmp_path / "e"))
    before = sha256(parent)
    seen = finish(train(settings, outputs=tmp_path))
    assert isinstance(seen[-1], Finished), seen[-1]
    assert [(event.kind, Path(event.file).name) for event in of_kind(seen, Saved) if event.kind != "state"] \
        == [("embedding", f"{WORD}.safetensors")]
    assert Path(seen[-1].result["checkpoint"]) == tmp_path / "e" / f"{WORD}.safetensors"
    assert sha256(parent) == before
    model = load_model(open_checkpoint(parent), "cpu", torch.float32)
    found = read_embedding(tmp_path / "e" / f"{WORD}.safetensors")
    assert found.vectors == 2
    assert found.width == sum(config.width for config in model.family.text)
    last = [event for event in of_kind(seen, Preview) if event.step == 2]
    assert len(last) == 1
    assert f"TI hashes: \"{WORD}:" in last[0].infotext
    [request] = preview_requests(settings, (64, 64))
    shown = Image.open(Path(seen[-1].result["run_dir"]) / last[0].file).convert("RGB")
    [named] = generate(model, request, surroundings=Surroundings(embeddings_dirs=(tmp_path / "e",)))
    [plain] = generate(model, request)
    assert ImageChops.difference(shown, named.image).getbbox() is None
    assert not torch.equal(named.latents, plain.latents)


def test_only_the_vectors_move_and_they_begin_as_the_words(tiny_checkpoint, picture_folder, tmp_path):
    settings = settings_of(tiny_checkpoint, picture_folder("i", 2), embedding__vectors=3)
    trainer = make_trainer(settings, tmp_path)
    model, start = trainer.model, trainer.inversions.trained["text_encoder"].detach().clone()
    a, cat = model.tokenizers[0].encode("a cat")
    rows = model.text_encoders[0].text_model.embeddings.token_embedding.weight
    assert torch.equal(start, torch.stack([rows[a], rows[a], rows[cat]]).float())  # vector i begins as token i * 2 // 3
    frozen = {name: value.clone() for part, module in model.parts.items() if part != "vae"
              for name, value in module.state_dict().items()}
    trainer.loss(double_batch(trainer)).backward()
    trainer.optimizer.step()
    assert not torch.equal(trainer.inversions.trained["text_encoder"], start)
    for part, module in model.parts.items():
        if part != "vae":
            assert all(torch.equal(value, frozen[name]) for name, value in module.state_dict().items())


def test_the_gradient_is_that_of_rows_of_the_token_embedding(tiny_checkpoint, picture_folder, tmp_path):
    """Oracle: the same loss with the vectors written over two rows of the encoder's own table."""
    trainer = make_trainer(settings_of(tiny_checkpoint, picture_folder("i", 2)), tmp_path)
    vectors, encoder = trainer.inversions.trained["text_encoder"], trainer.model.text_encoders[0]
    vectors.data = torch.randn(2, vectors.shape[1], generator=torch.Generator().manual_seed(1)).double()
    batch = double_batch(trainer)
    trainer.loss(batch).backward()
    table, (first, second) = encoder.text_model.embeddings.token_embedding, (1234, 2345)
    with torch.no_grad():
        table.weight[[first, second]] = vectors
    table.weight.requires_grad_(True)
    ids = trainer.model.tokenizers[0].encode("a photo of")
    framed = torch.tensor([[49406, *ids, first, second, *[49407] * (74 - len(ids))]])
    states = encoder(framed, output_hidden_states=True).last_hidden_state
    alpha = trainer.criterion.alphas_cumprod.double()[batch.timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
    said = trainer.model.unet(noisy, batch.timesteps, states.expand(len(noisy), -1, -1)).sample
    ((said - batch.noise) ** 2).mean().backward()
    assert torch.allclose(vectors.grad, table.weight.grad[[first, second]], rtol=1e-5, atol=1e-12)
    assert vectors.grad.abs().min() > 0


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("prompt", [f"a photo of {WORD}, by night", f"{'word ' * 73}{WORD} and more", "no name at all"])
def test_captions_are_told_as_the_sampler_tells_prompts(name, prompt, tmp_path):
    """Oracle: the sampler's own encoding, which is compared with the WebUI's elsewhere."""
    model = load_model(open_checkpoint(write_tiny(tmp_path / "m.safetensors", name)), "cpu", torch.float32)
    widths = [config.width for config in model.family.text]
    parts = {"": torch.randn(3, widths[0])} if len(widths) == 1 else \
        {"clip_l": torch.randn(3, widths[0]), "clip_g": torch.randn(3, widths[1])}
    embedding = Embedding(WORD, None, parts)
    request = SampleRequest(prompt=prompt, emphasis="None", options=SampleOptions(sdxl_clip_l_skip=False))
    library = library_for(model, Surroundings(embeddings=[embedding]))
    reader = TextReader(model, request, library, (64, 64), EncodingCache())
    inversions = Inversions(model, [embedding])
    with torch.no_grad():
        [wanted] = reader([prompt], negative=False)
        got = PromptEncoder(model, ModelSettings(max_token_length="150"), (), inversions).encode([prompt])
    assert torch.equal(got.context, wanted.context)


@pytest.mark.parametrize("stop", [1, 3])
def test_resume_is_exact(tiny_checkpoint, picture_folder, tmp_path, stop):
    changes = {"method__kind": "lora", "method__rank": 2, "train__length": 4, "ema__decay": 0.5}
    settings = settings_of(tiny_checkpoint, picture_folder("i", 2), **changes)
    whole = finish(train(settings, run_dir=tmp_path / "whole"))
    token = CancelToken()
    assert isinstance(finish(train(settings, token, tmp_path / "parts"), token, stop)[-1], Stopped)
    going_on = finish(resume(tmp_path / "parts"))
    assert vectors_in(tmp_path / "whole" / "embeddings")["emb_params"].equal(
        vectors_in(tmp_path / "parts" / "embeddings")["emb_params"])
    assert whole[-1].result["sha256"] == going_on[-1].result["sha256"]


def test_a_word_is_learnt_beside_the_model(tiny_checkpoint, picture_folder, tmp_path):
    settings = settings_of(tiny_checkpoint, picture_folder("i", 2), method__kind="full", train__length=2)
    seen = finish(train(settings, run_dir=tmp_path / "run"))
    assert [event.kind for event in of_kind(seen, Saved) if event.kind != "state"] == ["embedding", "checkpoint"]
    assert Path(seen[-1].result["checkpoint"]).parent.name == "checkpoints"
    begun = initial_vectors(
        load_model(open_checkpoint(tiny_checkpoint), "cpu", torch.float32), EmbeddingSettings(WORD, 2, "a cat")
    )
    assert not torch.equal(vectors_in(tmp_path / "run" / "embeddings")["emb_params"], begun["text_encoder"])


def test_the_users_embeddings_are_there_while_training(tiny_checkpoint, picture_folder, tmp_path):
    """NMFSAN-like: trained with embeddings present. They change what is learnt, and another file of that name too."""
    folder, instance = tmp_path / "embeddings", picture_folder("i", 2)
    folder.mkdir()
    width = open_checkpoint(tiny_checkpoint).family.text[0].width
    concept = {"name": "cat", "instance_dir": str(instance), "instance_prompt": "a cat in bad-style"}

    def weights(seed: int | None) -> torch.Tensor:
        changes = {} if seed is None else {"model__embeddings_dir": str(folder)}
        if seed is not None:
            vectors = torch.randn(4, width, generator=torch.Generator().manual_seed(seed))
            save_file({"emb_params": vectors}, folder / "bad-style.safetensors")
        settings = run_settings(tiny_checkpoint, instance, data__concepts=[concept], train__length=1, **changes)
        made = Path(finish(train(settings, outputs=tmp_path / str(seed)))[-1].result["checkpoint"])
        return load_file(made)["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"]

    without, one, other = weights(None), weights(1), weights(2)
    assert not torch.equal(without, one)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embedding__name": ""}, ("embedding.name", "has no name")),
        ({"embedding__name": "other"}, ("embedding.name", "no prompt and no caption says 'other'")),
        ({"embedding__name": "a/b"}, ("embedding.name", "cannot be both a word and a file's name")),
        ({"model__embeddings_dir": "/nowhere/at/all"}, ("model.embeddings_dir", "no such folder")),
        ({"ema__decay": 0.9, "save__ema": "keep"}, ("save.ema", "only the average of a whole UNet")),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tiny_checkpoint, picture_folder, tmp_path, changes, said):
    settings = settings_of(tiny_checkpoint, picture_folder("i", 2), **changes)
    with pytest.raises(UserError) as caught:
        finish(train(settings, outputs=tmp_path / "out"))
    [problem] = caught.value.problems
    assert problem.where == said[0]
    assert said[1] in problem.what
    assert not (tmp_path / "out").exists()


def test_the_learning_rate_of_an_embedding_is_its_own(tiny_checkpoint, picture_folder, tmp_path):
    trainer = make_trainer(settings_of(tiny_checkpoint, picture_folder("i", 2), method__kind="full"), tmp_path)
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {"unet": 1e-3, "text_encoder": 1e-3, "embedding": 5e-3}
    assert text.first_end(torch.tensor([[49406, 49500, 49407]])).item() == 2  # ids beyond the vocabulary end nothing
    assert resolve_run([], "cpu").settings.embedding.name == ""


def test_the_plan_counts_and_shows_the_vectors_of_a_word_in_place_of_its_letters(
    tiny_checkpoint, picture_folder, tmp_path
):
    """The letters of the word are other tokens of CLIP's, and another number of them than its vectors."""
    settings = settings_of(tiny_checkpoint, picture_folder("i", 1), embedding__vectors=5)
    prompt = settings.data.concepts[0].instance_prompt
    assert settings.embedding.name in prompt
    survey = result_of(make_survey(settings, tmp_path, "cpu", CancelToken()), str).document()
    (shown, *_), name = survey["prompts"], settings.embedding.name
    (pieces,) = shown["chunks"]
    assert pieces.count(f"{name} ") == 5
    assert "".join(piece for piece in pieces if piece != f"{name} ").split() == prompt.replace(name, "").split()
    assert survey["tokens"]["longest"] == len(pieces)
    assert shown["cut"] == 0
