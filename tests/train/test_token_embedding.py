"""The token embedding's own learning rate and words: what is moved, how far, and what is left bit for bit."""
from __future__ import annotations

import pytest
import torch

from lib_sdtrain import train
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import CancelToken, Stopped
from lib_sdtrain.model.family import SDXL
from lib_sdtrain.train.checks import check_settings
from lib_sdtrain.train.child import determining_settings
from lib_sdtrain.train.resume import resume
from tests.tiny import write_tiny
from tests.train.runs import finish, run_settings
from tests.train.test_ema import result_of
from tests.train.test_step import make_trainer

CAPTION = "a photo of sks dog"


def table(model, index=0):
    return model.text_encoders[index].text_model.embeddings.token_embedding.weight


def said_tokens(model):
    """The rows that the caption has: its tokens, the start, and the end that fills the rest."""
    return [49406, *model.tokenizers[0].encode(CAPTION), 49407]


def single(trainer):
    """Undo what `make_trainer` does to the modules: they are trained in 32 bit."""
    for module in (trainer.model.unet, *trainer.model.text_encoders):
        module.float()
    return trainer


def rates(trainer):
    return {group["name"]: group["base_lr"] for group in trainer.optimizer.param_groups}


def test_each_table_is_a_group_of_its_own(tmp_path, picture_folder):
    settings = run_settings(
        write_tiny(tmp_path / "xl.safetensors", SDXL), picture_folder("i", 1), method__train_text_encoder_2=True,
        train__text_encoder_lr=2e-4, train__text_encoder_2_lr=3e-4, train__token_embedding_lr=4e-3,
        train__batch_size=4, train__scale_lr="sqrt",
    )
    trainer = make_trainer(settings, tmp_path)
    assert rates(trainer) == pytest.approx({
        "unet": 2e-3, "text_encoder.token_embedding": 8e-3, "text_encoder": 4e-4,
        "text_encoder_2.token_embedding": 8e-3, "text_encoder_2": 6e-4,
    })
    groups = {group["name"]: group["params"] for group in trainer.optimizer.param_groups}
    for index, name in enumerate(("text_encoder", "text_encoder_2")):
        assert [id(p) for p in groups[f"{name}.token_embedding"]] == [id(table(trainer.model, index))]
        whole = [id(p) for p in trainer.model.text_encoders[index].parameters()]
        assert [id(table(trainer.model, index)), *map(id, groups[name])] == whole


def test_without_it_nothing_is_other_than_before(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 1), train__text_encoder_lr=2e-4)
    trainer = make_trainer(settings, tmp_path)
    assert rates(trainer) == {"unet": 1e-3, "text_encoder": 2e-4}
    assert all(group["weight_decay"] == 0.01 for group in trainer.optimizer.param_groups)
    assert "token_embedding_lr" not in determining_settings(settings)["train"]


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "adamw8bit"])
def test_the_first_step_moves_a_captions_rows_by_the_rate_and_no_others(
    tiny_checkpoint, picture_folder, tmp_path, optimizer,
):
    """Adam's and Lion's first step is the rate times the gradient's sign, whatever its size."""
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 1), train__optimizer=optimizer, train__token_embedding_lr=0.02,
        train__text_encoder_lr=1e-5, train__optimizer_args={"weight_decay": 0.3},
    )
    trainer = single(make_trainer(settings, tmp_path))
    before = table(trainer.model).detach().clone()
    trainer.train_step()
    moved = (table(trainer.model).detach() - before).abs()
    said = said_tokens(trainer.model)
    assert set(moved.sum(1).nonzero().flatten().tolist()) == set(said)
    assert moved[said].median().item() == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "lion", "prodigy", "schedule_free", "adafactor"])
def test_rows_of_no_caption_stay_bit_for_bit(tiny_checkpoint, picture_folder, tmp_path, optimizer):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__optimizer=optimizer, train__token_embedding_lr=0.05,
        train__optimizer_args={"weight_decay": 0.5},
    )
    trainer = single(make_trainer(settings, tmp_path))
    before = table(trainer.model).detach().clone()
    for _ in range(4):
        trainer.train_step()
    with trainer.shown_weights():
        after = table(trainer.model).detach().clone()
    changed = (after != before).any(1).nonzero().flatten().tolist()
    assert set(changed) == set(said_tokens(trainer.model))


def test_only_the_words_that_are_named_move(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__token_embedding_words=" sks, DOG ", train__text_encoder_lr=1e-2,
        train__optimizer_args={"weight_decay": 0.5}, train__max_grad_norm=0.0,
    )
    trainer = single(make_trainer(settings, tmp_path))
    assert rates(trainer) == {"unet": 1e-3, "text_encoder.token_embedding": 1e-2, "text_encoder": 1e-2}
    encoder = trainer.model.text_encoders[0]
    before, others = table(trainer.model).detach().clone(), encoder.text_model.final_layer_norm.weight.detach().clone()
    trainer.train_step()
    moved = (table(trainer.model).detach() - before).abs()
    named = {48136, 1929}  # "sks</w>" and "dog</w>" in CLIP's vocabulary
    assert set(moved.sum(1).nonzero().flatten().tolist()) == named
    assert moved[sorted(named)].median().item() == pytest.approx(1e-2, rel=1e-3)
    assert not torch.equal(encoder.text_model.final_layer_norm.weight, others)


def test_words_may_begin_as_other_words_and_go_on_from_a_state(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 2), train__token_embedding_words="sks",
        train__token_embedding_init="white dog", train__token_embedding_lr=1e-3,
    )
    trainer = single(make_trainer(settings, tmp_path))
    vectors = table(trainer.model).detach().clone()
    white, dog = trainer.model.tokenizers[0].encode("white dog")
    torch.testing.assert_close(vectors[48136], (vectors[white] + vectors[dog]) / 2)
    trainer.train_step()
    state = trainer.state()
    again = single(make_trainer(settings, tmp_path))
    again.restore(state)
    assert torch.equal(table(again.model)[48136], table(trainer.model)[48136])
    assert not torch.equal(table(again.model)[48136], vectors[48136])


def test_a_word_that_nothing_says_is_a_mistake(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 1), train__token_embedding_words="sks, ohwx")
    with pytest.raises(UserError) as caught:
        make_trainer(settings, tmp_path)
    assert str(caught.value).startswith("train.token_embedding_words: no prompt and no caption says 'ohwx'")


@pytest.mark.parametrize("changes", [
    {"data__replace_words": {"sks": "ohwx"}}, {"data__concepts__0__instance_prompt": "a photo of [folder]"},
])
def test_words_are_looked_for_in_what_training_says(tiny_checkpoint, picture_folder, tmp_path, changes):
    folder = picture_folder("ohwx", 1)
    assert make_trainer(run_settings(tiny_checkpoint, folder, train__token_embedding_words="ohwx", **changes), tmp_path)
    part = run_settings(tiny_checkpoint, folder, train__token_embedding_words="phot")
    with pytest.raises(UserError, match="says 'phot'"):
        make_trainer(part, tmp_path)


def test_a_rate_of_nought_leaves_the_table_and_trains_the_rest(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(tiny_checkpoint, picture_folder("i", 2), train__token_embedding_lr=0.0)
    trainer = single(make_trainer(settings, tmp_path))
    encoder = trainer.model.text_encoders[0]
    before = {name: value.detach().clone() for name, value in encoder.named_parameters()}
    trainer.train_step()
    same = {name for name, value in encoder.named_parameters() if torch.equal(value, before[name])}
    assert same == {"text_model.embeddings.token_embedding.weight"}


@pytest.mark.parametrize("words", [{}, {"train__token_embedding_words": "sks"}])
def test_a_stopped_run_goes_on_bit_for_bit(tiny_checkpoint, picture_folder, tmp_path, words):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 3), train__token_embedding_lr=0.01, ema__decay=0.9, **words,
    )
    straight = result_of(finish(train(settings, run_dir=tmp_path / "straight"))).read_bytes()
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    assert result_of(finish(resume(tmp_path / "cut"))).read_bytes() == straight


def test_what_may_change_while_a_run_goes_on(tiny_checkpoint, picture_folder, tmp_path):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 1), train__length=1, train__token_embedding_lr=0.01,
    )
    finish(train(settings, run_dir=tmp_path / "run"))
    for name, value, wrong in (
        ("token_embedding_lr", None, "it cannot be turned on or off"),
        ("token_embedding_words", "sks", "cannot change"),
    ):
        with pytest.raises(UserError, match=rf"train\.{name}: {wrong}"):
            finish(resume(tmp_path / "run", {f"train.{name}": value, "train.length": 2}))
    finish(resume(tmp_path / "run", {"train.token_embedding_lr": 0.02, "train.length": 2}))


def test_a_beginning_is_some_words_beginning(tmp_path):
    problems = Problems()
    settings = run_settings(tmp_path / "m.safetensors", tmp_path, train__token_embedding_init="white")
    check_settings(settings, "cpu", problems)
    assert [problem.where for problem in problems.found] == ["train.token_embedding_init"]


@pytest.mark.parametrize(("changes", "wrong"), [
    ({"method__kind": "lora"}, True),
    ({"method__kind": "embedding", "embedding__name": "sks"}, True),
    ({"method__train_text_encoder": False}, True),
    ({"method__train_text_encoder": False, "method__train_text_encoder_2": True}, False),
    ({}, False),
])
def test_it_needs_a_text_encoder_that_is_trained_as_a_whole(tmp_path, changes, wrong):
    problems = Problems()
    settings = run_settings(tmp_path / "m.safetensors", tmp_path, train__token_embedding_lr=0.01, **changes)
    check_settings(settings, "cpu", problems)
    assert [problem.where for problem in problems.found] == ["train.token_embedding_lr"] * wrong
