"""Steps inside backward: the same weights bit for bit, and never all gradients at once."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib_sdtrain import train
from lib_sdtrain.errors import JobFailed, Problems
from lib_sdtrain.events import CancelToken, Finished, Stopped
from lib_sdtrain.settings.run_method import TrainGroup
from lib_sdtrain.train import backward_steps
from lib_sdtrain.train.backward_steps import SMALL, BackwardSteps, check_backward_steps
from lib_sdtrain.train.optimizers import kept
from lib_sdtrain.train.optimizers.registry import DEFAULTS, optimizer_class
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.trainer import Trainer
from tests.train.runs import finish, run_settings
from tests.train.test_ema import result_of
from tests.train.test_step import make_trainer

OPTIMIZERS = ("adamw", "adamw8bit", "lion", "schedule_free", "adafactor", "SGD", "RAdam", "NAdam", "Adagrad")


class Network(nn.Module):
    """A convolution, a norm and matrices, one large enough for eight-bit moments; one layer is not always reached."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.norm, self.wide = nn.Conv2d(3, 32, 3), nn.GroupNorm(2, 32), nn.Linear(32, 600)
        self.last, self.spare = nn.Linear(600, 32), nn.Linear(32, 32)
        for parameter in self.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x, spare):
        x = self.last(torch.relu(self.wide(self.norm(self.first(x)).mean((2, 3)))))
        return self.spare(x) if spare else x


def path(name, inside, steps=6, largest_norm=0.0, **own):
    """Weights and the optimizer's memory after some steps, with two groups, a warm-up and a weight that waits."""
    network, generator = Network(), torch.Generator().manual_seed(1)
    groups = [
        {"params": [*network.first.parameters(), *network.norm.parameters()], "name": "a"},
        {"params": [*network.wide.parameters(), *network.last.parameters()], "name": "b", "lr": 2e-3},
        {"params": list(network.spare.parameters()), "name": "c"},
    ]
    given = {**DEFAULTS.get(name, {}), **own}
    optimizer = optimizer_class(name)(groups, lr=1e-3, **given)
    steps_inside = BackwardSteps(optimizer, largest_norm) if inside else None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step + 1) / steps
        x = torch.randn(5, 3, 8, 8, generator=generator)
        loss = network(x, spare=step in (2, 3)).square().mean()
        if steps_inside:
            steps_inside.backward(loss)
            assert all(parameter.grad is None for parameter in network.parameters() if parameter.numel() >= SMALL)
            steps_inside.finish()
            assert all(parameter.grad is None for parameter in network.parameters())
        else:
            loss.backward()
            if largest_norm:
                torch.nn.utils.clip_grad_norm_(network.parameters(), largest_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return list(network.parameters()), kept.tensors_of(optimizer), kept.facts_of(optimizer)


@pytest.fixture(params=[0, SMALL])
def small(request, monkeypatch):
    """Every gradient used at once, and as it is."""
    monkeypatch.setattr(backward_steps, "SMALL", request.param)
    return request.param


@pytest.mark.parametrize("norm", [0.0, 0.01, 100.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("small")
def test_every_optimizer_gives_the_same_bit_for_bit(name, norm):
    (plain, memory, facts), (ours, own_memory, own_facts) = (
        path(name, inside, largest_norm=norm) for inside in (False, True))
    for one, other in zip(plain, ours, strict=True):
        assert torch.equal(one, other)
    assert memory.keys() == own_memory.keys()
    assert all(torch.equal(value, own_memory[key]) for key, value in memory.items())
    assert facts == own_facts
    assert not torch.equal(plain[0], next(Network().parameters()))


def test_the_fused_form_gives_the_same_too():
    plain, ours = (path("adamw", inside, fused=True)[0] for inside in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(plain, ours, strict=True))


def test_room_for_what_the_optimizer_keeps_is_let_go_as_it_is_made():
    layer = nn.Linear(200, 200)
    inside = BackwardSteps(torch.optim.AdamW(layer.parameters()), moment_bytes=8)
    inside.make_room()
    assert [room.numel() for room in inside._room.values()] == [8 * 200 * 200 + SMALL]  # the bias is too small
    inside.backward(layer(torch.ones(1, 200)).sum())
    assert inside._room == {}


def test_a_resumed_optimizer_needs_no_room():
    layer = nn.Linear(200, 200)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 200)).sum().backward()
    optimizer.step()
    inside = BackwardSteps(optimizer, moment_bytes=8)
    inside.make_room()
    assert inside._room == {}


def test_room_that_no_gradient_asks_for_is_let_go():
    used, unused = nn.Linear(200, 200), nn.Linear(200, 200)
    inside = BackwardSteps(torch.optim.AdamW([*used.parameters(), *unused.parameters()]), moment_bytes=8)
    inside.make_room()
    inside.backward(used(torch.ones(1, 200)).sum())
    assert list(inside._room) == [unused.weight]
    inside.finish()
    assert inside._room == {}


def test_small_gradients_wait_in_the_same_place_at_every_step():
    """What autograd makes beside a large gradient and stays would lie in the way of the next."""
    layer, places = nn.Linear(200, 200), set()
    inside = BackwardSteps(torch.optim.SGD(layer.parameters(), lr=0.1))
    between = []
    for _ in range(4):
        inside.backward(layer(torch.ones(1, 200)).sum())
        places.add(layer.bias.grad.data_ptr())
        inside.finish()
        between.append(torch.empty(200))  # so that no place is free by chance
    assert len(places) == 1


class Counting(torch.optim.SGD):
    """Notes its steps in a group, as some do, from the first one on."""

    def step(self):
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
        return super().step()


def test_what_an_optimizer_notes_in_a_group_counts_steps_and_not_weights(monkeypatch):
    monkeypatch.setattr(backward_steps, "SMALL", 0)
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = Counting(layers.parameters(), lr=0.1)
    inside = BackwardSteps(optimizer)
    for step in range(1, 4):
        inside.backward(layers(torch.ones(2, 3)).sum())
        inside.finish()
        assert optimizer.param_groups[0]["steps"] == step
    assert optimizer.param_groups[0]["params"] == list(layers.parameters())


def test_room_is_made_before_the_first_forward_pass(tiny_checkpoint, picture_folder, tmp_path, monkeypatch):
    seen, make_room, answer = [], BackwardSteps.make_room, Trainer.answer
    monkeypatch.setattr(BackwardSteps, "make_room", lambda steps: seen.append("room") or make_room(steps))
    monkeypatch.setattr(Trainer, "answer", lambda trainer, batch: seen.append("answer") or answer(trainer, batch))
    settings = run_settings(tiny_checkpoint, picture_folder("i", 1), train__length=1, train__step_in_backward=True)
    finish(train(settings, run_dir=tmp_path / "run"))
    assert seen == ["room", "answer"]


@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_a_gradient_in_two_parts_is_no_silent_second_step(monkeypatch, norm):
    """As reentrant checkpointing of a shared layer would give it."""
    monkeypatch.setattr(backward_steps, "SMALL", 0)
    layer = nn.Linear(3, 3)
    steps = BackwardSteps(torch.optim.SGD(layer.parameters(), lr=0.1), norm)
    x = torch.ones(2, 3, requires_grad=True)
    twice = checkpoint(layer, checkpoint(layer, x, use_reentrant=True), use_reentrant=True)
    with pytest.raises(JobFailed, match=r"came in more than one part.*turn train\.step_in_backward off"):
        steps.backward(twice.sum())


def test_a_layer_that_is_used_twice_moves_once(monkeypatch):
    monkeypatch.setattr(backward_steps, "SMALL", 0)
    layers = [nn.Linear(3, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in layers]
    inside = BackwardSteps(optimizers[1])
    losses = [layer(layer(torch.ones(2, 3))).square().sum() for layer in layers]
    losses[0].backward()
    inside.backward(losses[1])
    optimizers[0].step()
    assert layers[1].weight.grad is None
    assert torch.equal(layers[0].weight, layers[1].weight)


METHODS = {
    "whole": {
        "method.train_text_encoder": True, "train.text_encoder_lr": 5e-4, "train.lr_scheduler": "cosine",
        "train.lr_warmup": 1, "ema.decay": 0.8, "train.batch_size": 2,
    },
    "checkpointed": {"method.train_text_encoder": True, "train.gradient_checkpointing": True},
    "bf16": {"train.mixed_precision": "bf16", "train.optimizer": "adamw8bit"},
    "words": {
        "method.train_text_encoder": True, "train.token_embedding_words": "sks", "train.token_embedding_lr": 1e-2,
        "train.optimizer": "lion", "train.learning_rate": 1e-4,
    },
    "lora": {"method.kind": "lora", "method.rank": 4, "method.train_text_encoder": True},
    "embedding": {"method.kind": "embedding", "embedding.name": "sks", "embedding.learning_rate": 1e-2},
    "schedule-free": {"train.optimizer": "schedule_free"},
}


@pytest.fixture
def settings_of(tiny_checkpoint, picture_folder):
    folder = picture_folder("i", 3)

    def made(inside, **own):
        own = {key.replace(".", "__"): value for key, value in own.items()}
        return run_settings(
            tiny_checkpoint, folder, **{"train__max_grad_norm": 0.0, "train__step_in_backward": inside, **own}
        )

    return made


def single(trainer):
    for module in (trainer.model.unet, *trainer.model.text_encoders):
        module.float()
    return trainer


@pytest.mark.parametrize("norm", [0.0, 0.01])
@pytest.mark.parametrize("method", METHODS)
def test_a_trainer_reaches_the_same_weights(settings_of, tmp_path, method, norm):
    plain, ours = (
        single(make_trainer(settings_of(inside, **METHODS[method], **{"train.max_grad_norm": norm}), tmp_path))
        for inside in (False, True)
    )
    for _ in range(2):
        assert plain.train_step() == ours.train_step()
    one, other = plain.state(), ours.state()
    assert one.facts == other.facts
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(value, other.tensors[key]) for key, value in one.tensors.items())


@pytest.mark.parametrize("norm", [0.0, 0.01])
def test_gradients_never_exist_together(settings_of, tmp_path, small, norm):
    found = {}
    for inside in (False, True):
        settings = settings_of(inside, **METHODS["whole"], **{"train.max_grad_norm": norm})
        trainer = single(make_trainer(settings, tmp_path))
        parameters = [parameter for part in trainer.parts.values() for parameter in part.parameters()]
        alive = []  # values of the gradients that are there already whenever one comes
        for parameter in parameters:
            parameter.register_hook(lambda _, alive=alive, all_=parameters: alive.append(
                sum(parameter.numel() for parameter in all_ if parameter.grad is not None)))
        trainer.train_step()
        found[inside] = max(alive)
        assert len(alive) > 500
    sizes = [parameter.numel() for parameter in parameters]
    assert found[False] > 0.9 * (sum(sizes) - max(sizes))  # the largest, the words' vectors, comes last
    assert found[True] <= sum(size for size in sizes if size < small)
    assert found[True] == 0 if small == 0 else found[True] > 0


def test_a_stopped_run_goes_on_with_or_without_it(settings_of, tmp_path):
    """The state is the same one, byte for byte, so either may go on from it."""
    whole = {"train.length": 3}
    files = [finish(train(settings_of(on, **whole), run_dir=tmp_path / f"whole-{on}"))[-1] for on in (False, True)]
    assert all(isinstance(end, Finished) for end in files)
    wanted, ours = (load_file(end.result["checkpoint"]) for end in files)
    assert all(torch.equal(value, ours[key]) for key, value in wanted.items())
    token = CancelToken()
    seen = finish(train(settings_of(True, **whole), token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    again = load_file(result_of(finish(resume(tmp_path / "cut"))))
    assert all(torch.equal(value, again[key]) for key, value in wanted.items())
    states = [next((tmp_path / name / "state").glob("*/tensors.safetensors")).read_bytes()
              for name in ("whole-False", "whole-True", "cut")]
    assert states[0] == states[1] == states[2]


def test_a_loss_that_is_no_number_moves_nothing(settings_of, tmp_path, monkeypatch):
    trainer = single(make_trainer(settings_of(True), tmp_path))
    before = {key: value.clone() for key, value in trainer.model.unet.state_dict().items()}
    plain = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda batch: plain(batch) * float("nan"))
    with pytest.raises(JobFailed, match="the loss is nan at step 1"):
        trainer.train_step()
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.unet.state_dict().items())


def test_out_of_memory_is_said_and_not_split(settings_of, tmp_path, monkeypatch):
    trainer = single(make_trainer(settings_of(True, **{"train.batch_size": 2}), tmp_path))

    def cramped(*_args, **_more):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.model.unet, "forward", cramped)
    with pytest.raises(JobFailed, match=r"cannot be taken in pieces.*turn train\.step_in_backward off"):
        trainer.train_step()
    assert trainer.pieces == 1


def complaints(**changes):
    problems = Problems()
    check_backward_steps(TrainGroup(**{"step_in_backward": True, **changes}), problems)
    return [f"{problem.where}: {problem.what}" for problem in problems.found]


def test_what_does_not_go_with_it_is_said_one_message_each():
    assert complaints() == complaints(optimizer="adamw8bit") == complaints(optimizer="RAdam") == []
    assert complaints(optimizer="no.such.Thing") == []  # told by what looks for optimizers
    together = complaints(gradient_accumulation_steps=2, mixed_precision="fp16", optimizer="prodigy")
    assert [text.split(":")[0] for text in together] == [
        "train.gradient_accumulation_steps", "train.mixed_precision", "train.optimizer"]
    assert complaints(optimizer=f"{__name__}.Another") == [
        f"train.optimizer: it is not known whether {__name__}.Another treats each weight on its own"]
    assert complaints(step_in_backward=False, gradient_accumulation_steps=2) == []


class Another(torch.optim.SGD):
    """An optimizer of another package."""
