"""`train` as a person runs it: documents, the dry run, Ctrl-C and going on."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lib_sdtrain.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def config(tmp_path, tiny_checkpoint, picture_folder):
    """A run of 20 steps with a class, and the file that describes it."""
    concept = {
        "name": "sks", "instance_dir": str(picture_folder("i", 3)), "instance_prompt": "a photo of sks dog",
        "class_dir": str(picture_folder("c", 3)), "class_prompt": "a photo of a dog", "num_class_images": 3,
    }
    values = {
        "model": {"checkpoint": str(tiny_checkpoint)}, "data": {"resolution": 64, "concepts": [concept]},
        "train": {"length": 20, "learning_rate": 1e-4},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def command(*arguments):
    return [sys.executable, "-m", "lib_sdtrain", "train", *map(str, arguments), "--json"]


def document_of(finished):
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.fault("Ctrl-C saves and stops; going on gives the file of an undisturbed run")
def test_interrupted_at_step_seven_and_resumed_equals_twenty_straight_and_ten_lengthened(config, tmp_path):
    straight = document_of(run("--config", config, "--run-dir", tmp_path / "straight"))
    assert straight["steps"] == 20
    assert {"run_dir", "checkpoint", "sha256", "seconds", "steps_per_second", "peak_memory_bytes"} <= straight.keys()

    log = tmp_path / "cut" / "events.jsonl"
    process = subprocess.Popen(
        command("--config", config, "--run-dir", tmp_path / "cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT,
    )
    while process.poll() is None and steps_in(log) < 7:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    stopped_at = json.loads(out)["steps"]
    assert 7 <= stopped_at <= 9
    assert f"stopped at step {stopped_at}, saved" in err
    resumed = document_of(run("--resume", tmp_path / "cut"))

    short = document_of(run("--config", config, "--run-dir", tmp_path / "short", "--set", "train.length=10"))
    lengthened = document_of(run("--resume", short["run_dir"], "--set", "train.length=20"))
    assert straight["sha256"] == resumed["sha256"] == lengthened["sha256"]


def steps_in(log):
    return log.read_text().count('"type": "step"') if log.exists() else 0


def test_the_dry_run_tells_what_will_happen_and_touches_nothing(config, tmp_path, capsys):
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(["train", "--config", str(config), "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 3
    assert document["steps"] == 20
    assert document["concepts"][0]["share"] == 1.0
    assert document["buckets"] == [{"size": [64, 64], "images": 3, "lost": 0.2, "enlarged": 0, "encoded": 3}]
    assert document["prompts"] == ["a photo of sks dog"] * 20
    assert document["memory_bytes"] > 0
    assert document["disk_bytes"] > 0
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert main(["train", "--config", str(config), "--dry-run", "--set", "train.seed=3"]) == 0
    text = capsys.readouterr().out
    assert f"train.length = 20    ({config})" in text
    assert "train.seed = 3    (--set)" in text
    assert "train.batch_size = 1    (default)" in text


@pytest.mark.parametrize("own", ["method.kind=lora", "method.train_text_encoder=false"])
def test_another_choice_than_the_presets_is_no_mistake_and_told(capsys, own):
    """The preset trains a word's own vector, which neither does."""
    assert main(["train", "--preset", "toybox-dreambooth", "--set", own, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "left out of preset toybox-dreambooth, " in told.err
    assert "train.token_embedding_words = sks" not in told.out


def test_a_run_can_be_run_again_from_its_own_config(config, tmp_path):
    first = document_of(run("--config", config, "--run-dir", tmp_path / "a", "--set", "train.length=2"))
    again = document_of(run("--config", tmp_path / "a" / "config.yaml", "--run-dir", tmp_path / "b"))
    assert first["sha256"] == again["sha256"]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_every_command_ends_well(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    if name == "train":
        assert "train.learning_rate" in text
    assert name in README


def test_tokens_are_counted_in_chunks_of_75(capsys):
    assert main(["tokens", "a photo of sks dog", "cat " * 76, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["tokens"] == ["a</w>", "photo</w>", "of</w>", "sks</w>", "dog</w>"]
    assert first["ids"] == [320, 1125, 539, 48136, 1929]
    assert (first["chunks"], second["chunks"]) == (1, 2)


def test_the_commands_start_without_loading_torch():
    code = "import sys; from lib_sdtrain.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True,
                          env={**os.environ})
    assert done.stdout.strip().endswith("False")
