"""`bench train`: the loop that it compares with does what training does, and its numbers mean what they say."""
from __future__ import annotations

import json

import pytest
import torch

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import Cancelled, JobFailed
from lib_sdtrain.events import CancelToken, Phase
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.bench import loop, measure
from lib_sdtrain.train.bench.watch import Watched, a_step, counted, step_ends, watch
from lib_sdtrain.train.parts import trained_parts


def _settings(checkpoint, **changes):
    bench = measure.TrainBench(str(checkpoint), resolution=64, steps=1, **changes)
    return build(RunSettings, measure.settings_of(bench, str(checkpoint)))


def _model(checkpoint):
    return load_model(open_checkpoint(checkpoint), "cpu", torch.float32)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("text_encoder", [True, False])
def test_the_baseline_trains_as_many_weights(tiny_checkpoint, method, text_encoder):
    settings = _settings(tiny_checkpoint, method=method, text_encoder=text_encoder)
    theirs = sum(parameter.numel() for parameter in loop.trainable(_model(tiny_checkpoint), settings))
    ours = trained_parts(settings, _model(tiny_checkpoint)).values()
    assert theirs == sum(parameter.numel() for part in ours for parameter in part.parameters())


def test_a_lora_of_the_baseline_changes_nothing_at_first_and_learns(tiny_checkpoint):
    settings, model = _settings(tiny_checkpoint, method="lora", text_encoder=True), _model(tiny_checkpoint)
    pixels, prompts = torch.rand(2, 3, 64, 64) * 2 - 1, ["a photo of sks cat", "a photo of a cat"]
    torch.manual_seed(0)
    plain = loop.step_loss(model, pixels, prompts, 1.0)
    parameters = loop.trainable(model, settings)
    torch.manual_seed(0)
    loss = loop.step_loss(model, pixels, prompts, 1.0)
    torch.testing.assert_close(loss, plain)
    loss.backward()
    assert all(parameter.grad is not None for parameter in parameters)
    torch.manual_seed(0)
    instance = loop.step_loss(model, pixels, prompts, 0.0)
    assert 0 < instance < loss


def test_both_sides_are_run_and_compared(tiny_checkpoint, tmp_path, capsys):
    wanted = ["bench", "train", "--model", str(tiny_checkpoint), "--resolution", "64", "--steps", "1", "--runs", "1"]
    assert main([*wanted, "--folder", str(tmp_path / "temporary"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["train_tiny_full_unet_text_64px"]
    assert row["ratio"] == pytest.approx(row["ours"] / row["baseline"], rel=0.05)
    assert row["runs"] == row["steps"] == 1
    for side in ("ours", "baseline"):
        assert row[f"fastest_{side}"] == row[side] > 0
        assert row[f"first_step_{side}"] > row[side]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_sides_go_in_turn_and_medians_are_compared(tiny_checkpoint, monkeypatch):
    asked = []

    def watched(side, command, events, steps, environment, token):
        asked.append(side)
        events.parent.mkdir()
        yield Phase(name=side, done=steps, total=steps)
        number = len(asked) // 2
        if side == "ours":
            return Watched((1.0 + number, 2.0 + number, 9.0), 10.0 + number, 100 + number, 0.5 + number, None)
        return Watched((6.0, 8.0, 7.0), 20.0, 50, 6.0, 1000.5)

    monkeypatch.setattr(measure, "watch", watched)
    bench = measure.TrainBench(str(tiny_checkpoint), "lora", False, 64, 3, 3)
    *_, last = measure.bench_train(bench, CancelToken())
    assert asked == ["ours", "baseline", "baseline", "ours", "ours", "baseline"]
    assert last.result == {"train_tiny_lora_unet_64px": {
        "ours": 4.0, "baseline": 7.0, "ratio": 0.571, "runs": 3, "steps": 3, "processor_ratio": 0.417,
        "fastest_ours": 1.0, "processor_ours": 2.5, "first_step_ours": 12.0, "memory_ours": 102, "faults_ours": None,
        "fastest_baseline": 6.0, "processor_baseline": 6.0, "first_step_baseline": 20.0, "memory_baseline": 50,
        "faults_baseline": 1000.5,
    }}


def test_steps_are_read_and_the_first_ones_not_counted(tmp_path):
    events = tmp_path / "events.jsonl"
    assert step_ends(events) == []
    lines = [{"type": "started", "time": 1.0}, *({"type": "step", "time": 10.0 + n * n} for n in range(5))]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"type": "step", "ti')
    assert step_ends(events) == [10.0, 11.0, 14.0, 19.0, 26.0]
    assert counted(step_ends(events)) == (5.0, 7.0)
    assert a_step({1: 5000, 3: 9000, 4: 9100, 6: 9700}) == 700 / 3
    assert a_step({1: 5000, 3: 9000}) is None


def test_a_side_that_fails_is_quoted(tmp_path):
    with pytest.raises(JobFailed, match="no luck today"):
        list(watch("ours", ["sh", "-c", "echo no luck today; exit 1"], tmp_path / "run" / "x", 4, {}, CancelToken()))


def test_it_can_be_stopped(tmp_path):
    token = CancelToken()
    token.stop_and_save()
    with pytest.raises(Cancelled):
        list(watch("ours", ["sleep", "60"], tmp_path / "run" / "x", 4, {}, token))


@pytest.mark.parametrize(("flags", "said"), [
    (["--model", "nowhere.safetensors"], "nowhere.safetensors"),
    (["--runs", "0"], "--runs"),
    (["--steps", "0"], "--steps"),
])
def test_mistakes_are_told(flags, said, capsys):
    assert main(["bench", "train", *flags]) == 2
    assert said in capsys.readouterr().err
