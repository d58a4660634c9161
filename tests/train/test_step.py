"""One training step against a reference written out by hand: every sample on its own, in double precision."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from lib_sdtrain.events import CancelToken
from lib_sdtrain.train.clipping import clip
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.encoding import latents_of
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.starting import load_for_training
from lib_sdtrain.train.trainer import Trainer
from tests.train.runs import run_settings


def make_trainer(settings, tmp_path):
    events = make_plan(settings, tmp_path, "cpu", CancelToken())
    while True:
        try:
            next(events)
        except StopIteration as end:
            plan = end.value
            break
    model = load_for_training(plan)
    draws = draws_of(plan)
    trainer = Trainer(plan, model, latents_of(plan, model, tmp_path), draws)
    for module in (model.unet, *model.text_encoders):
        module.double()
    return trainer


def double_batch(trainer):
    batch = trainer.next_batch()
    return replace(batch, latents=batch.latents.double(), noise=batch.noise.double())


def alpha_bar(t):
    """Stable Diffusion's schedule from its definition; the published files hold it in single precision."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return float(np.float32(np.cumprod(1 - betas)[t]))


def words(trainer, prompt, clip_skip):
    encoder, tokenizer = trainer.model.text_encoders[0], trainer.model.tokenizers[0]
    ids = tokenizer.encode(prompt)
    ids = torch.tensor([[49406, *ids, *[49407] * (76 - len(ids))]])
    states = encoder(ids, output_hidden_states=True).hidden_states
    return encoder.text_model.final_layer_norm(states[-clip_skip])


def reference_loss(trainer, batch, weight, reduction, clip_skip):
    """The loss with a forward pass for every sample; class samples are those whose prompt has no `sks`."""
    instance, kept = [], []
    for x, n, t, prompt in zip(batch.latents, batch.noise, batch.timesteps, batch.prompts, strict=True):
        a = alpha_bar(int(t))
        noisy = a**0.5 * x.double() + (1 - a) ** 0.5 * n.double()
        said = trainer.model.unet(noisy[None], t[None], words(trainer, prompt, clip_skip)).sample[0]
        (instance if "sks" in prompt else kept).append(functional.mse_loss(said, n.double()))
    if reduction == "mean":
        return (sum(instance) + weight * sum(kept)) / (len(instance) + len(kept))
    return sum(instance) / len(instance) + weight * sum(kept) / len(kept)


def gradients(trainer, loss):
    for module in (trainer.model.unet, *trainer.model.text_encoders):
        module.zero_grad(set_to_none=True)
    loss.backward()
    found = [p.grad for part in trainer.parts.values() for p in part.parameters()]
    return torch.cat([grad.flatten() for grad in found if grad is not None])


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_loss_and_gradients_equal_the_reference(
    tiny_checkpoint, picture_folder, tmp_path, weight, reduction, batch_size
):
    settings = run_settings(
        tiny_checkpoint, picture_folder("i", 3), picture_folder("c", 3), loss__prior_loss_weight=weight,
        loss__prior_reduction=reduction, train__batch_size=batch_size, model__clip_skip=2,
    )
    trainer = make_trainer(settings, tmp_path)
    batch = double_batch(trainer)
    ours = trainer.loss(batch)
    our_gradients = gradients(trainer, ours)
    theirs = reference_loss(trainer, batch, weight, reduction, clip_skip=2)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    their_gradients = gradients(trainer, theirs)
    assert float((our_gradients - their_gradients).norm() / their_gradients.norm()) < 1e-6
    assert len(batch.prompts) == 2 * batch_size
    assert float(their_gradients.norm()) > 0


def test_accumulation_equals_one_large_batch(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 4)
    whole = make_trainer(run_settings(tiny_checkpoint, folder, train__batch_size=4), tmp_path)
    parts = make_trainer(run_settings(
        tiny_checkpoint, folder, train__batch_size=2, train__gradient_accumulation_steps=2), tmp_path)
    one = gradients(whole, whole.loss(double_batch(whole)))
    first, second = parts.loss(double_batch(parts)), parts.loss(double_batch(parts))
    two = gradients(parts, (first + second) / 2)
    assert float((one - two).norm() / one.norm()) < 1e-6


def test_gradient_checkpointing_changes_memory_not_gradients(tiny_checkpoint, picture_folder, tmp_path):
    folder = picture_folder("i", 1)
    plain, saving = (
        make_trainer(run_settings(tiny_checkpoint, folder, train__gradient_checkpointing=on), tmp_path)
        for on in (False, True)
    )
    grads = [gradients(trainer, trainer.loss(double_batch(trainer))) for trainer in (plain, saving)]
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) < 1e-9


def test_a_frozen_text_encoder_gets_no_gradient_and_is_asked_once_a_prompt(
    tiny_checkpoint, picture_folder, tmp_path, monkeypatch
):
    trainer = make_trainer(
        run_settings(tiny_checkpoint, picture_folder("i", 2), method__train_text_encoder=False), tmp_path)
    asked = []
    encode = trainer.prompts._encode
    monkeypatch.setattr(trainer.prompts, "_encode", lambda index, ids: asked.append(ids) or encode(index, ids))
    for _ in range(3):
        trainer.loss(double_batch(trainer)).backward()
    tokenizer = trainer.model.tokenizers[0]
    assert asked == [[tuple(tokenizer.frame(tokenizer.encode("a photo of sks dog")))]]
    assert all(p.grad is None for p in trainer.model.text_encoders[0].parameters())


@pytest.mark.parametrize("largest", [1e-3, 0.5, 1e3])
def test_gradients_are_clipped_as_torch_clips_them(largest):
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (5,), (2,))] for _ in range(2))
    for parameters in (ours, theirs):
        generator = torch.Generator().manual_seed(3)
        for parameter in parameters[:2]:  # the last one has no gradient
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    clip(ours, largest)
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert torch.equal(one.grad, other.grad)
    norm = torch.cat([parameter.grad.flatten() for parameter in ours[:2]]).norm()
    assert norm <= largest * 1.00001 or largest == 1e3
    assert ours[2].grad is None
    clip(ours[2:], largest)  # nothing to clip
